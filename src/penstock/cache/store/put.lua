-- ARGV: key, entry, vector, scope, size, now, until, most bytes, most entries, most that may go. Returns the keys of what went.
local key, entry, vector, scope, size = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local now, ends = ARGV[6], ARGV[7]
local most_bytes, most_entries, most_gone = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local SLACK_MS = 60000 -- Redis' clock need not agree with the gateways'
local last_ms = string.format('%.0f', tonumber(ends) * 1000 + SLACK_MS)
local gone = {}

remove(key)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', P .. ':x', '-inf', now, 'LIMIT', 0, most_gone)) do
  remove(old)
  gone[#gone + 1] = old
end
redis.call('SET', P .. ':e:' .. key, entry, 'PXAT', last_ms)
local by_meaning = 0
if vector ~= '' then
  by_meaning = 1
  redis.call('SET', P .. ':v:' .. key, vector, 'PXAT', last_ms)
  redis.call('ZADD', P .. ':s:' .. scope, redis.call('HINCRBY', P .. ':t', 'number', 1), key)
end
redis.call('HSET', P .. ':m', key, size .. ' ' .. by_meaning .. ' ' .. scope)
redis.call('ZADD', P .. ':u', now, key)
redis.call('ZADD', P .. ':x', ends, key)
redis.call('HINCRBY', P .. ':t', 'by_meaning', by_meaning)
local bytes = redis.call('HINCRBY', P .. ':t', 'bytes', size)

while (bytes > most_bytes or redis.call('HLEN', P .. ':m') > most_entries) and #gone < most_gone do
  local oldest = redis.call('ZRANGE', P .. ':u', 0, 1)
  local old = oldest[1] ~= key and oldest[1] or oldest[2] -- two in the same instant: the new one stays
  if not old then
    break
  end
  if remove(old) == 0 then -- its meta data is gone
    redis.call('ZREM', P .. ':u', old)
    redis.call('ZREM', P .. ':x', old)
  end
  gone[#gone + 1] = old
  bytes = tonumber(redis.call('HGET', P .. ':t', 'bytes'))
end
return gone
