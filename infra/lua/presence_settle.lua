-- An agent was looked at: what is watched of it from now on, nothing when it has no connected session.
-- ARGV: the marks (see `presence_watched.lua`), then agent id, ticket, what is watched or ''.
-- Returns 0, and changes nothing, when the agent was made due, or given to somebody else, meanwhile.
local mark, own = marks()
local agent, ticket, watched = ARGV[own], tonumber(ARGV[own + 1]), ARGV[own + 2]
local score = tonumber(redis.call('ZSCORE', DUE, agent) or nil)
if score ~= ticket then return 0 end
if watched == '' then
  redis.call('ZREM', DUE, agent)
  redis.call('HDEL', WATCHED, agent)
  return 1
end
redis.call('HSET', WATCHED, agent, watched)
redis.call('ZADD', DUE, quiet_until(mark, watched, heard(ids_in({ watched }))) or mark.as_of + 1, agent)
return 1
