-- Count a message of high priority, in two windows of an hour that move along with the time.
-- KEYS: the owner's zset, and that of the sender and the receiver. ARGV: member, limit of the owner, limit of the pair.
-- Returns {'granted', 'lowered' or 'refused', milliseconds until a refusal ends}.
-- What is refused is not counted; the same member is counted once.
local HOUR_MS = 3600000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local member = ARGV[1]

local function forget_old(key) redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. now - HOUR_MS) end

local function note(key)
  redis.call('ZADD', key, now, member)
  redis.call('PEXPIRE', key, HOUR_MS)
end

forget_old(KEYS[1])
forget_old(KEYS[2])
if redis.call('ZSCORE', KEYS[1], member) then
  return { redis.call('ZSCORE', KEYS[2], member) and 'granted' or 'lowered', 0 }
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  return { 'refused', oldest + HOUR_MS - now }
end
note(KEYS[1])
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) then return { 'lowered', 0 } end
note(KEYS[2])
return { 'granted', 0 }
