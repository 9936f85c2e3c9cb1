local hold_s, tokens, nano, per_minute = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local budget_day, budget_month, warns = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1'
local seed_day, seed_month, enforced = tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12] == '1'

turn()
local warned
if enforced then
  local held_nano = get('held_nano')
  if budget_day or budget_month then
    if seed_day then
      set('day_nano', math.max(get('day_nano'), seed_day))
      set('month_nano', math.max(get('month_nano'), seed_month))
      set('is_seeded', 1)
    end
    if get('is_seeded') == 0 then return refused('unseeded', 0) end
  end
  if per_minute then
    local used, second = window('t')
    local counted = used + get('held_tokens')
    local excess = counted + tokens - per_minute
    if excess > 0 then
      return refused('tokens', counted, tokens <= per_minute and (wait('t', second, excess) or 1))
    end
  end
  local by_day, by_month = get('day_nano') + held_nano, get('month_nano') + held_nano
  if budget_day and by_day + nano > budget_day then
    warned = refused('day', by_day, false, warns)
  elseif budget_month and by_month + nano > budget_month then
    warned = refused('month', by_month, false, warns)
  end
  if warned and not warns then return warned end
end
if not redis.call('ZSCORE', live, hold) then take(hold, hold_s) end
local before = read(hold)
add('held_tokens', tokens - before.tokens)
add('held_nano', nano - before.nano)
write(hold, tokens, nano, day)
keep()
return warned or false
