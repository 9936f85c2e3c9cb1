-- KEYS[1] is the prefix of all names. Takes an entry away with all that belongs to it; returns 1, or 0 where there is none.
local P = KEYS[1]

local function remove(key)
  local meta = redis.call('HGET', P .. ':m', key)
  if not meta then
    return 0
  end
  local size, by_meaning, scope = string.match(meta, '^(%d+) (%d) (%x*)$')
  redis.call('DEL', P .. ':e:' .. key, P .. ':v:' .. key, P .. ':o:' .. key)
  redis.call('HDEL', P .. ':m', key)
  redis.call('ZREM', P .. ':u', key)
  redis.call('ZREM', P .. ':x', key)
  redis.call('HINCRBY', P .. ':t', 'bytes', -size)
  if by_meaning == '1' then
    redis.call('ZREM', P .. ':s:' .. scope, key)
    redis.call('HINCRBY', P .. ':t', 'by_meaning', -1)
  end
  return 1
end

