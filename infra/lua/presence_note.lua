-- Changes of the directory make agents due, unless whoever looked at them last has seen the change.
-- ARGV: prefix, era, up to which sequence, then per change: agent id, sequence, 1 when its sessions changed (of an agent
-- that is not watched nothing else matters). Returns 1, or 0 when this store was emptied and another era has begun.
local era, reached = ARGV[2], tonumber(ARGV[3])
local place = redis.call('HMGET', PLACE, 'era', 'seq')
if place[1] ~= era then return 0 end

for i = 4, #ARGV, 3 do
  local agent, seq, of_sessions = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2] == '1'
  local watched = redis.call('HGET', WATCHED, agent)
  local seen = watched and tonumber(string.match(watched, '^%d+'))
  if (watched and not of_sessions) or (of_sessions and not (seen and seen >= seq)) then
    redis.call('ZADD', DUE, 0, agent)
  end
end
if reached > tonumber(place[2]) then
  redis.call('HSET', PLACE, 'seq', reached)
end
return 1
