-- Find rows in the order of their accept sequence, with bounded work.
-- ARGV: prefix, 'page' or 'count', owner, agent, sender, channel, states joined by commas, cursor, 'newest' or
-- 'oldest', rows wanted, rows to look at, thread, counterpart, priorities joined by commas, accepted after (ms),
-- 'either' for rows the owner received or sent ('*': anybody). '' stands for "any" and for "from the start".
-- Returns {status, cursor, …}: status 'ok' or 'rebuilding'; cursor '' at the end; then whole rows, or the number counted.
local mode, owner, agent, sender, channel = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local states, is_wanted_state = {}, {}
for state in string.gmatch(ARGV[7], '[^,]+') do
  states[#states + 1] = state
  is_wanted_state[state] = true
end
local newest, want, budget = ARGV[9] == 'newest', tonumber(ARGV[10]), tonumber(ARGV[11])
local thread, counterpart, since, either = ARGV[12], ARGV[13], ARGV[15], ARGV[16] == 'either'
local is_wanted_priority = {}
for priority in string.gmatch(ARGV[14], '%d') do is_wanted_priority[priority] = true end
local received = agent ~= '' or sender == '' -- then the receiving owner must match, otherwise the sender's

local function per_state(key_of)
  local keys = {}
  for n, state in ipairs(states) do keys[n] = key_of(state) end
  return keys
end

-- A plan is a set of zsets that together hold every match; `covers` counts the filters that need no second look.
-- The plan of a thread nobody has answered is its first message alone.
local function plans()
  local found = {}
  local function add(covers, keys) found[#found + 1] = { keys = keys, covers = covers } end
  if thread ~= '' then
    if redis.call('EXISTS', thread_key(thread)) == 1 then return { { keys = { thread_key(thread) }, covers = 0 } } end
    return { { keys = {}, alone = first_of(thread), covers = 0 } }
  end
  if sender ~= '' then add(1, { sender_key(owner, sender) }) end
  if agent ~= '' then
    if #states > 0 then
      add(2, per_state(function(state) return agent_state_key(owner, agent, state) end))
    else
      add(1, { agent_key(owner, agent) })
    end
  end
  if received and #states > 0 then add(1, per_state(function(state) return owner_state_key(owner, state) end)) end
  if received and channel ~= '' then add(1, { owner_channel_key(owner, channel) }) end
  if #found == 0 then add(0, { owner_key(owner) }) end
  return found
end

local function size_of(plan)
  local size = 0
  for _, key in ipairs(plan.keys) do size = size + redis.call('ZCARD', key) end
  return size
end

local function best_plan()
  local best
  for _, plan in ipairs(plans()) do
    plan.size = size_of(plan)
    if not best or plan.size < best.size then best = plan end
  end
  return best
end

local function filters()
  local n = #states > 0 and 1 or 0
  if either then n = n + 1 end
  for _, filter in ipairs({ agent, sender, channel, thread, counterpart, ARGV[14], since }) do
    if filter ~= '' then n = n + 1 end
  end
  return n
end

local function range(key, cursor, n)
  if newest then
    return redis.call('ZREVRANGEBYSCORE', key, cursor == '' and '+inf' or '(' .. cursor, '-inf', 'WITHSCORES', 'LIMIT', 0, n)
  end
  return redis.call('ZRANGEBYSCORE', key, cursor == '' and '-inf' or '(' .. cursor, '+inf', 'WITHSCORES', 'LIMIT', 0, n)
end

local function in_order(a, b)
  if newest then return tonumber(a.score) > tonumber(b.score) end
  return tonumber(a.score) < tonumber(b.score)
end

local function is_behind(score, cursor)
  if cursor == '' then return true end
  if newest then return tonumber(score) < tonumber(cursor) end
  return tonumber(score) > tonumber(cursor)
end

local function single_member(ulid, cursor)
  local row = header_of(redis.call('GETRANGE', row_key(ulid), 0, HEADER_BYTES))
  if row and is_behind(row.accept_seq, cursor) then return { { ulid = ulid, score = row.accept_seq } } end
  return {}
end

-- The next `n` members of all zsets together: the first `n` of each are enough to know them.
local function next_members(plan, cursor, n)
  if plan.alone then return single_member(plan.alone, cursor) end
  local sources, members = 0, {}
  for _, key in ipairs(plan.keys) do
    local reply = range(key, cursor, n)
    if #reply > 0 then sources = sources + 1 end
    for i = 1, #reply, 2 do members[#members + 1] = { ulid = reply[i], score = reply[i + 1] } end
  end
  if sources > 1 then
    table.sort(members, in_order)
    for i = #members, n + 1, -1 do members[i] = nil end
  end
  return members
end

local function is_owners(row)
  if either then return owner == '*' or row.owner == owner or row.sender_owner == owner end
  return (not received or row.owner == owner) and (sender == '' or row.sender_owner == owner)
end

local function is_with_counterpart(row)
  if counterpart == '' then return true end
  return counterpart == (agent ~= '' and row.sender or row.agent)
end

local function matches(row)
  return is_owners(row)
    and (sender == '' or row.sender == sender)
    and (thread == '' or row.thread == thread)
    and is_with_counterpart(row)
    and (ARGV[14] == '' or is_wanted_priority[row.priority] == true)
    and (since == '' or tonumber(row.accepted_ms) > tonumber(since))
    and (agent == '' or row.agent == agent)
    and (channel == '' or row.channel == channel)
    and (#states == 0 or is_wanted_state[row.state] == true)
end

-- Calls `take(member)` for each match until it returns false.
-- Returns the cursor to go on with, '' at the end, or nil when a row is gone.
local function scan(plan, take)
  local cursor, looked_at = ARGV[8], 0
  while looked_at < budget do
    local n = math.min(math.max(want + 1, 64), budget - looked_at)
    local members = next_members(plan, cursor, n)
    for _, member in ipairs(members) do
      local row = header_of(redis.call('GETRANGE', row_key(member.ulid), 0, HEADER_BYTES))
      if not row then return nil end
      if matches(row) and not take(member) then return cursor end
      cursor = member.score
    end
    if #members < n then return '' end
    looked_at = looked_at + n
  end
  return cursor
end

-- Where the indexes alone answer the question, no row needs to be looked into.
local function covered_page(plan)
  local members = next_members(plan, ARGV[8], want + 1)
  if #members == 0 then return { 'ok', '' } end
  local keys = {}
  for n = 1, math.min(want, #members) do keys[n] = row_key(members[n].ulid) end
  local reply = { 'ok', #members > want and members[want].score or '' }
  for _, row in ipairs(redis.call('MGET', unpack(keys))) do
    if not row then return nil end
    reply[#reply + 1] = row
  end
  return reply
end

local function page(plan)
  if plan.covers == filters() then return covered_page(plan) end
  local reply = { 'ok', '' }
  local cursor = scan(plan, function(member)
    if #reply == want + 2 then return false end
    reply[#reply + 1] = redis.call('GET', row_key(member.ulid))
    return true
  end)
  reply[2] = cursor
  return cursor and reply
end

local function count(plan)
  if plan.covers == filters() then return { 'ok', '', plan.size } end
  local n = 0
  local cursor = scan(plan, function()
    n = n + 1
    return true
  end)
  return cursor and { 'ok', cursor, n }
end

if redis.call('EXISTS', KEYS[1]) == 0 then return { 'rebuilding' } end
local plan = best_plan()
local reply = mode == 'count' and count(plan) or mode == 'page' and page(plan)
if reply then return reply end
-- A row that its index knows is gone: the server evicted it. Without the marker the router derives all rows again.
redis.call('DEL', KEYS[1])
return { 'rebuilding' }
