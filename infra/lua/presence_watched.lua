-- What the routers watch of one agent, and until when nothing about it has to be looked at again.
--
--   due       sorted set: agent id, at which instant of the mark `door` it is looked at; 0: now
--   watched   hash: agent id -> `<sequence of its sessions' record>` and, per connected session, ` <id> <attached at>
--             <overdue after> <terminal after> <1 when it was overdue>`
--   place     hash: `era` and `seq`, up to where changes of the directory are in `due`
--
-- Everything in milliseconds. Silence is counted as `contracts/freshness.py` counts it. A beat touches none of these.
local PREFIX = ARGV[1]
local BEATS, DUE = PREFIX .. 'beats', PREFIX .. 'presence:due'
local WATCHED, PLACE = PREFIX .. 'presence:watched', PREFIX .. 'presence:place'
local SOONEST, LATEST, PATIENCE = 1000, 15000, 120

-- ARGV: prefix, now, how silent counts who is known to be gone, how many names the marks have, those names (`door`, then
-- each outage's beginning and end). What is behind them is the script's own, from the index that is returned too.
local function marks()
  local now, names = tonumber(ARGV[2]), {}
  for i = 5, 4 + tonumber(ARGV[4]) do names[#names + 1] = ARGV[i] end
  local known = redis.call('ZMSCORE', BEATS, unpack(names))
  local door = tonumber(known[1] or nil)
  local mark = { as_of = door and math.min(now, door) or 0, gone_for = tonumber(ARGV[3]), outages = {} }
  for i = 2, #names, 2 do
    local from, to = tonumber(known[i] or nil), tonumber(known[i + 1] or nil)
    if from and to then mark.outages[#mark.outages + 1] = { from = from, to = to } end
  end
  return mark, 5 + #names
end

local function silence(mark, since)
  local counted = mark.as_of - since
  for _, outage in ipairs(mark.outages) do
    counted = counted - math.max(0, math.min(mark.as_of, outage.to) - math.max(since, outage.from))
  end
  return math.max(0, counted)
end

-- An overdue session may beat at any moment. The longer it has been silent the more rarely somebody looks.
local function pause(silent)
  return math.min(math.max(SOONEST, silent / PATIENCE), LATEST)
end

local function heard(ids)
  local seen = {}
  if #ids == 0 then return seen end
  for place, score in ipairs(redis.call('ZMSCORE', BEATS, unpack(ids))) do
    seen[ids[place]] = score or nil
  end
  return seen
end

local function ids_in(texts)
  local ids = {}
  for _, text in ipairs(texts) do
    for id in string.gmatch(text or '', ' (sess_%S+)') do ids[#ids + 1] = id end
  end
  return ids
end

-- The instant at which a session may stand differently; nil when it does already.
-- A negative score is that of who is known to be gone.
local function quiet_session(mark, score, overdue, terminal, was_overdue)
  local counted = silence(mark, math.abs(score))
  local silent = score < 0 and math.max(counted, mark.gone_for) or counted
  if silent > terminal or (silent > overdue) ~= was_overdue then return nil end
  if not was_overdue then return mark.as_of + overdue - silent + 1 end
  return mark.as_of + math.min(terminal - silent + 1, pause(counted))
end

local function quiet_until(mark, watched, seen)
  local earliest = nil
  for id, attached, overdue, terminal, late in string.gmatch(watched, ' (%S+) (%d+) (%d+) (%d+) (%d)') do
    local at = quiet_session(mark, tonumber(seen[id] or attached), tonumber(overdue), tonumber(terminal), late == '1')
    if not at then return nil end
    earliest = math.min(earliest or at, at)
  end
  return earliest
end
