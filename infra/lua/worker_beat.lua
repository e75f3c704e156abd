-- Note a worker's beat. KEYS[1]: the owner's hash. ARGV: worker, now in ms, handlers as JSON ('' keeps what is known),
-- how many workers an owner may have, how long one is kept in ms. Returns 1, or 0 when there are too many.
-- A value is `<first beat> <last beat> <handlers>`.
local key, worker, now, handlers = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local known = redis.call('HGET', key, worker)

local function drop_the_old()
  local all = redis.call('HGETALL', key)
  for n = 1, #all, 2 do
    local last = string.match(all[n + 1], '^%d+ (%d+) ')
    if tonumber(last) < tonumber(now) - tonumber(ARGV[5]) then redis.call('HDEL', key, all[n]) end
  end
end

if not known and redis.call('HLEN', key) >= tonumber(ARGV[4]) then
  drop_the_old()
  if redis.call('HLEN', key) >= tonumber(ARGV[4]) then return 0 end
end
local first, before = now, '[]'
if known then
  first, before = string.match(known, '^(%d+) %d+ (.*)$')
end
if handlers == '' then handlers = before end
redis.call('HSET', key, worker, first .. ' ' .. now .. ' ' .. handlers)
redis.call('PEXPIRE', key, ARGV[5])
return 1
