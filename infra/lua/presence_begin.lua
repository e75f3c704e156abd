-- From where changes of the directory are to be followed: begun anew after this store was emptied, or the directory.
-- ARGV: prefix, a fresh name for the era, the directory's last sequence. Returns the era and the sequence.
local place, last = ARGV[1] .. 'presence:place', tonumber(ARGV[3])
local known = redis.call('HMGET', place, 'era', 'seq')
if known[1] and tonumber(known[2]) <= last then
  return { known[1], tonumber(known[2]) }
end
redis.call('HSET', place, 'era', ARGV[2], 'seq', 0)
return { ARGV[2], 0 }
