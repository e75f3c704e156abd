-- Take tokens out of a bucket that fills steadily (GCRA), as many as wanted or as there are.
-- KEYS: the bucket. ARGV: microseconds per token, the bucket's size in tokens, how many are wanted.
-- Returns: granted, left, microseconds until the next token (0 while there are some), microseconds until it is full.
local step, size, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local there = math.floor((now + size * step - tat) / step + 0.000001)
local granted = math.min(there, wanted)
if granted > 0 then
  tat = tat + granted * step
  redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
end
local left = there - granted
local wait = left > 0 and 0 or tat + step - size * step - now
return { granted, left, math.ceil(wait), math.ceil(tat - now) }
