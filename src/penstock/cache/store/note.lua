-- ARGV: key, comparison, most that are kept.
local key = ARGV[1]
if redis.call('EXISTS', P .. ':e:' .. key) == 1 then
  redis.call('RPUSH', P .. ':o:' .. key, ARGV[2])
  redis.call('LTRIM', P .. ':o:' .. key, -ARGV[3], -1)
  redis.call('PEXPIRE', P .. ':o:' .. key, redis.call('PTTL', P .. ':e:' .. key))
end
return 0
