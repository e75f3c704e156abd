-- The agents somebody has to look at, each given to one router for a while; the others that are due are put off.
-- ARGV: the marks (see `presence_watched.lua`), then how long an agent is given away, how many may be looked at here.
-- Returns how many are due, 1 when there may be more to take, the ticket `settle` wants to see, then the agents.
local mark, own = marks()
local given, limit = tonumber(ARGV[own]), tonumber(ARGV[own + 1])
-- Told apart from whoever is given the same agent at the same instant by a fraction of a millisecond.
local number = redis.call('HINCRBY', PLACE .. ':tickets', 'n', 1) % 1000
local ticket = string.format('%.3f', mark.as_of + given + number / 1000)

local due, called = {}, {}
local found = redis.call('ZRANGEBYSCORE', DUE, '-inf', mark.as_of, 'WITHSCORES', 'LIMIT', 0, limit)
for i = 1, #found, 2 do
  due[#due + 1] = found[i]
  called[found[i]] = tonumber(found[i + 1]) == 0
end
local answer = { 0, #due == limit and 1 or 0, ticket }
if #due == 0 then return answer end

local watched = redis.call('HMGET', WATCHED, unpack(due))
local seen, moved, given_away = heard(ids_in(watched)), {}, {}
for place, agent in ipairs(due) do
  local text = watched[place]
  local at = text and not called[agent] and quiet_until(mark, text, seen)
  moved[#moved + 1], moved[#moved + 2] = at or ticket, agent
  if not at then
    answer[#answer + 1] = agent
    -- Whoever is given it next, because this look came to nothing, must not find it as it stood before.
    given_away[#given_away + 1], given_away[#given_away + 2] = agent, '0'
  end
end
redis.call('ZADD', DUE, unpack(moved))
if #given_away > 0 then redis.call('HSET', WATCHED, unpack(given_away)) end
answer[1] = redis.call('ZCOUNT', DUE, '-inf', mark.as_of) + #answer - 3
return answer
