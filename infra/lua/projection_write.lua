-- Write rows, each unless a row as new is stored already, and move them between the indexes.
-- ARGV: prefix, then ulid and row in turn. Returns how many were written.
local INDEXES = 7

local function indexes_of(row)
  if not row then return {} end
  return {
    agent_key(row.owner, row.agent),
    agent_state_key(row.owner, row.agent, row.state),
    owner_key(row.owner),
    owner_state_key(row.owner, row.state),
    owner_channel_key(row.owner, row.channel),
    row.sender ~= '-' and sender_key(row.sender_owner, row.sender) or nil,
  }
end

local function move(ulid, old, new)
  local from, to = indexes_of(old), indexes_of(new)
  local rescored = not old or old.accept_seq ~= new.accept_seq
  for n = 1, INDEXES do
    local moved = from[n] ~= to[n]
    if moved and from[n] then redis.call('ZREM', from[n], ulid) end
    if to[n] and (moved or rescored) then redis.call('ZADD', to[n], new.accept_seq, ulid) end
  end
end

local written = 0
for i = 2, #ARGV, 2 do
  local ulid, text = ARGV[i], ARGV[i + 1]
  local key = row_key(ulid)
  local new = header_of(text)
  local old = header_of(redis.call('GETRANGE', key, 0, HEADER_BYTES))
  if not old or old.seq < new.seq then
    move(ulid, old, new)
    redis.call('SET', key, text)
    written = written + 1
  end
end
return written
