-- How many messages an owner received before each of some instants, by halving: no row is written or kept for it.
-- ARGV: prefix, owner, then the instants (ms), rising. Returns {'ok', number before each …, number of all}, or
-- {'rebuilding'}. A border lies between two rows in the order of the ledger, so every row is on one side of it; rows
-- that gateways with different clocks accepted around an instant may lie on the other.
if redis.call('EXISTS', KEYS[1]) == 0 then return { 'rebuilding' } end
local index = owner_key(ARGV[2])
local total = redis.call('ZCARD', index)

local function accepted_ms_at(rank)
  local ulid = redis.call('ZRANGE', index, rank, rank)[1]
  local row = header_of(redis.call('GETRANGE', row_key(ulid), 0, HEADER_BYTES))
  return row and tonumber(row.accepted_ms)
end

-- The first rank, not before `from`, of a row accepted at the instant or later; nil when a row is gone.
local function border_of(instant, from)
  local low, high = from, total
  while low < high do
    local middle = math.floor((low + high) / 2)
    local accepted_ms = accepted_ms_at(middle)
    if not accepted_ms then return nil end
    if accepted_ms < instant then low = middle + 1 else high = middle end
  end
  return low
end

local reply, last = { 'ok' }, 0
for i = 3, #ARGV do
  last = border_of(tonumber(ARGV[i]), last)
  if not last then
    -- The server evicted it. Without the marker the router derives all rows again.
    redis.call('DEL', KEYS[1])
    return { 'rebuilding' }
  end
  reply[#reply + 1] = last
end
reply[#reply + 1] = total
return reply
