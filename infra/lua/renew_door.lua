-- Somebody listens: the mark `door` moves to now, and a gap before it becomes the newest outage, which does not count.
-- KEYS: the beats. ARGV: now and the longest gap that is none, in milliseconds; then `door`, and the names of the
-- outages' beginnings and ends, the newest first. An absent mark is a store that was emptied: nothing before now
-- counts, from `NOBODY_LISTENED` in `contracts/freshness.py` on.
local beats, now, longest, nobody_listened = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), 315532800000
local door = tonumber(redis.call('ZSCORE', beats, ARGV[3]) or nil)

if not door or now - door > longest then
  for i = #ARGV - 2, 4, -1 do
    local moved = redis.call('ZSCORE', beats, ARGV[i])
    if moved then redis.call('ZADD', beats, moved, ARGV[i + 2]) end
  end
  redis.call('ZADD', beats, door or nobody_listened, ARGV[4], now, ARGV[5])
end
redis.call('ZADD', beats, 'GT', now, ARGV[3])
return redis.status_reply('OK')
