-- Write rows, each unless a row as new is stored already, and move them between the indexes.
-- ARGV: prefix, then ulid and row in turn. Returns how many were written.
local INDEXES = 7
local MOST_JOINING = 2000 -- what `unpack` spreads has to fit on Lua's stack of 8000

local function indexes_of(row)
  return {
    agent_key(row.owner, row.agent),
    agent_state_key(row.owner, row.agent, row.state),
    owner_key(row.owner),
    owner_state_key(row.owner, row.state),
    owner_channel_key(row.owner, row.channel),
    row.sender ~= '-' and sender_key(row.sender_owner, row.sender) or nil,
  }
end

-- New rows join their indexes together, one command per index: commands cost more than what they add.
local joining, most_joining = {}, 0

local function join(ulid, new)
  for _, key in pairs(indexes_of(new)) do
    local members = joining[key] or {}
    joining[key] = members
    members[#members + 1] = new.accept_seq
    members[#members + 1] = ulid
    most_joining = math.max(most_joining, #members)
  end
end

local function join_all()
  for key, members in pairs(joining) do redis.call('ZADD', key, unpack(members)) end
  joining, most_joining = {}, 0
end

local function move(ulid, old, new)
  -- It may be in the same call that the row joined what it now leaves.
  join_all()
  local from, to = indexes_of(old), indexes_of(new)
  local rescored = old.accept_seq ~= new.accept_seq
  for n = 1, INDEXES do
    local moved = from[n] ~= to[n]
    if moved and from[n] then redis.call('ZREM', from[n], ulid) end
    if to[n] and (moved or rescored) then redis.call('ZADD', to[n], new.accept_seq, ulid) end
  end
end

-- A message that answers none joins its thread only once somebody has answered it: most never are.
local function join_thread(ulid, row)
  local key, first = thread_key(row.thread), first_of(row.thread)
  if ulid == first then
    if redis.call('EXISTS', key) == 1 then redis.call('ZADD', key, row.accept_seq, ulid) end
    return
  end
  redis.call('ZADD', key, row.accept_seq, ulid)
  local opening = header_of(redis.call('GETRANGE', row_key(first), 0, HEADER_BYTES))
  if opening then redis.call('ZADD', key, opening.accept_seq, first) end
end

local written = 0
for i = 2, #ARGV, 2 do
  local ulid, text = ARGV[i], ARGV[i + 1]
  local key = row_key(ulid)
  local new = header_of(text)
  local old = header_of(redis.call('GETRANGE', key, 0, HEADER_BYTES))
  if not old or old.seq < new.seq then
    if old then move(ulid, old, new) else join(ulid, new) end
    if most_joining >= MOST_JOINING then join_all() end
    redis.call('SET', key, text)
    if not old or old.accept_seq ~= new.accept_seq then join_thread(ulid, new) end
    written = written + 1
  end
end
join_all()
return written
