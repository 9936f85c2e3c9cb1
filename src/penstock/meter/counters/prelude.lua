-- The arithmetic of account.py, in Redis. Each script is this prelude and one operation; each runs as one step.
--
-- account  hash: day, month, day_nano, month_nano, is_seeded, held_tokens, held_nano; of each window ("r" requests, "t" tokens)
--          the last second, the total and the buckets that are not empty
-- held     hash: hold -> "tokens|nano|day"
-- live     sorted set: holds by the time when they expire
-- late     sorted set: those that have expired and are remembered
-- charged  sorted set: what was settled though it might have no hold, by the time until which that is remembered
--
-- Times are unix seconds of this server's own clock, unless the caller gives one. Numbers are whole and below 2^53: exact.

local account, held, live, late, charged = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local now, hold = tonumber(ARGV[1]), ARGV[2]
if now == nil then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local WINDOW, DAY, REMEMBERED, KEPT = 60, 86400, 86400, 40 * 86400

local function get(name)
  return tonumber(redis.call('HGET', account, name) or '0')
end

local function set(name, value)
  redis.call('HSET', account, name, string.format('%.0f', value))
end

local function add(name, value)
  if value ~= 0 then redis.call('HINCRBY', account, name, string.format('%.0f', value)) end
end

local function at(time)
  return string.format('%.6f', time)
end

-- Months since year 0 of a day since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local month = math.floor((5 * doy + 2) / 153) + 2 -- from 0, January of the next year is 12
  return (yoe + era * 400) * 12 + month
end

-- A window: what counts now, and the second that is current. A clock that goes back stands still.
local function window(kind)
  local second, last, total = math.floor(now), get(kind .. '_second'), get(kind .. '_total')
  if second <= last then return total, last end
  if last > 0 then
    for old = last - WINDOW, math.min(last, second - WINDOW - 1) do
      local count = redis.call('HGET', account, kind .. old)
      if count then
        total = total - tonumber(count)
        redis.call('HDEL', account, kind .. old)
      end
    end
  end
  set(kind .. '_second', second)
  set(kind .. '_total', total)
  return total, second
end

local function use(kind, second, count)
  redis.call('HINCRBY', account, kind .. second, string.format('%.0f', count))
  add(kind .. '_total', count)
end

-- Seconds until `excess` has left the window; false where it never had so much.
local function wait(kind, second, excess)
  for old = second - WINDOW, second do
    excess = excess - tonumber(redis.call('HGET', account, kind .. old) or '0')
    if excess <= 0 then return math.max(old + WINDOW + 1 - now, 0.001) end
  end
  return false
end

local function read(id)
  local written = redis.call('HGET', held, id)
  if not written then return nil end
  local tokens, nano, day = string.match(written, '^(%d+)|(%d+)|(%d+)$')
  return { tokens = tonumber(tokens), nano = tonumber(nano), day = tonumber(day) }
end

local function write(id, tokens, nano, day)
  redis.call('HSET', held, id, string.format('%.0f|%.0f|%.0f', tokens, nano, day))
end

-- A hold that is over, and what it had; nil where there is none.
local function release(id)
  local found = read(id)
  if not found then return nil end
  if redis.call('ZREM', live, id) == 1 then
    add('held_tokens', -found.tokens)
    add('held_nano', -found.nano)
  else
    redis.call('ZREM', late, id)
  end
  redis.call('HDEL', held, id)
  return found
end

local day = math.max(math.floor(now / DAY), get('day'))
local month = month_of(day)

local function take(id, hold_s)
  release(id)
  write(id, 0, 0, day)
  redis.call('ZADD', live, at(now + hold_s), id)
end

-- Let time pass: a new day, a new month, holds that have expired.
local function turn()
  if day > get('day') then
    set('day', day)
    set('day_nano', 0)
    if month > get('month') then
      set('month', month)
      set('month_nano', 0)
    end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', live, '-inf', at(now))) do
    local found = read(id)
    if found then
      add('held_tokens', -found.tokens)
      add('held_nano', -found.nano)
      redis.call('ZADD', late, redis.call('ZSCORE', live, id), id)
    end
    redis.call('ZREM', live, id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', late, '-inf', at(now - REMEMBERED))) do
    redis.call('HDEL', held, id)
    redis.call('ZREM', late, id)
  end
  redis.call('ZREMRANGEBYSCORE', charged, '-inf', at(now))
end

-- What is not used for so long goes: no budget is longer than a month.
local function keep()
  for _, key in ipairs({ account, held, live, late, charged }) do
    redis.call('EXPIRE', key, KEPT)
  end
end

local function refused(control, counted, wait_s, warned)
  keep()
  return { control, string.format('%.0f', counted), wait_s and at(wait_s) or '', warned and 1 or 0 }
end
