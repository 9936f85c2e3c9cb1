local hold_s, per_minute, places = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local needs_hold, enforced = ARGV[6] == '1', ARGV[7] == '1'

turn()
local counted, second = 0, 0
if per_minute then
  counted, second = window('r')
  if counted >= per_minute and enforced then
    return refused('requests', counted, wait('r', second, counted + 1 - per_minute))
  end
end
if places and enforced then
  local taken = redis.call('ZCARD', live)
  if taken >= places then return refused('concurrent', taken, 1) end
end
if per_minute then use('r', second, 1) end
if needs_hold then take(hold, hold_s) end
keep()
return false
