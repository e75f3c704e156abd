-- Beats of sessions: taken unless a session has been silent for too long to come back, all of them decided at once.
-- KEYS: the beats. ARGV: now, the least time between two writes, how many names the marks have, those names (`door`,
-- then each outage's beginning and end); then per session: id, seen at, attached at, how long it may be silent.
-- Everything in milliseconds. Returns how many names are known, then per session the instant it counts as heard of at,
-- or false when it comes too late. Silence is counted as `contracts/freshness.py` counts it.
local beats, now, least, marks = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local first = 4 + marks

local names = {}
for i = 4, first - 1 do
  names[#names + 1] = ARGV[i]
end
for i = first, #ARGV, 4 do
  names[#names + 1] = ARGV[i]
end
local known = redis.call('ZMSCORE', beats, unpack(names))
local door = tonumber(known[1] or nil)
local as_of = door and math.min(now, door)

local function silence(since)
  if not as_of then return 0 end
  local counted = as_of - since
  for i = 2, marks, 2 do
    local from, to = tonumber(known[i] or nil), tonumber(known[i + 1] or nil)
    if from and to then
      counted = counted - math.max(0, math.min(as_of, to) - math.max(since, from))
    end
  end
  return counted
end

-- When whoever is said to have been silent for so long counts as heard of, for all of that silence to count.
local function silent_since(age)
  local listened_until = as_of
  for i = 2, marks, 2 do
    local from, to = tonumber(known[i] or nil), tonumber(known[i + 1] or nil)
    if not from or not to or listened_until - to >= age then break end
    age, listened_until = age - math.max(0, listened_until - to), from
  end
  return listened_until - age
end

local function counted_from(seen)
  local age = now - seen
  if not as_of or silence(seen) >= as_of - seen then return seen end
  return silent_since(age)
end

local taken, answer, place = {}, { 0 }, 1
for i = first, #ARGV, 4 do
  place = place + 1
  local heard, said = tonumber(known[marks + place - 1] or nil), tonumber(ARGV[i + 1])
  local seen = counted_from(said)
  -- Negative: known to be gone, and back with this beat.
  local was_gone = heard and heard < 0
  heard = heard and math.abs(heard)
  if silence(heard or tonumber(ARGV[i + 2])) > tonumber(ARGV[i + 3]) then
    answer[place] = false
  elseif heard and not was_gone and seen >= heard and seen - heard < least then
    answer[place] = heard
  else
    taken[#taken + 1], taken[#taken + 2] = string.format('%.0f', seen), ARGV[i]
    answer[place] = said
  end
end
if #taken > 0 then
  redis.call('ZADD', beats, unpack(taken))
end
answer[1] = redis.call('ZCARD', beats)
return answer
