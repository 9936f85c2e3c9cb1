local tokens, nano, unheld = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'

turn()
local found = release(hold)
if unheld then -- it may come again, also where there was a hold
  if redis.call('ZSCORE', charged, hold) then return 0 end
  redis.call('ZADD', charged, at(now + REMEMBERED), hold)
elseif not found then
  return 0
end
if tokens > 0 then
  local _, second = window('t')
  use('t', second, tokens)
end
if not found or found.day == day then add('day_nano', nano) end
if not found or month_of(found.day) == month then add('month_nano', nano) end
keep()
return 1
