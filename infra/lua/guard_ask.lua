-- Ask the guards' budgets for many messages at once, and spend them for those that may pass.
-- ARGV: prefix, keep_ms, then per message: spend (0 or 1), number of budgets, and per budget owner, member, limit,
-- window_ms, cool_down_ms. Returns three numbers per budget: verdict, remaining, retry after (ms). A budget that is used
-- up and opens thereby says OPENED once, to the message it refuses first; from then on REFUSED.
--
-- A budget is one string `<tat> <till>`: the instant at which its bucket is full again (GCRA's theoretical arrival
-- time), and, when it is open, the instant of its next probe. No string: full and closed. `open:<owner>` lists the open
-- ones by that instant. A message spends all of its budgets or none, and opens no more than the one that refuses it.
local PASS, PROBE, REFUSED, OPENED = 0, 1, 2, 3
local prefix, keep_ms = ARGV[1] .. 'guard:', tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function budget_at(i)
  local budget = {
    owner = ARGV[i], member = ARGV[i + 1], limit = tonumber(ARGV[i + 2]),
    window = tonumber(ARGV[i + 3]), cool_down = tonumber(ARGV[i + 4]),
    key = prefix .. ARGV[i] .. ':' .. ARGV[i + 1], tat = now, till = 0,
  }
  local text = redis.call('GET', budget.key)
  if text then
    local tat, till = string.match(text, '^(%S+) (%S+)$')
    budget.tat, budget.till = math.max(tonumber(tat), now), tonumber(till)
  end
  budget.step = budget.window / budget.limit
  budget.left = math.floor((now + budget.window - budget.tat) / budget.step + 0.000001)
  return budget
end

local function judge(budget)
  if budget.till > now then return REFUSED, budget.till - now end
  if budget.till > 0 then return PROBE, 0 end
  if budget.left >= 1 then return PASS, 0 end
  if budget.cool_down > 0 then return REFUSED, budget.cool_down end
  return REFUSED, budget.tat + budget.step - budget.window - now
end

local function store(budget)
  local last = math.max(budget.tat - now, budget.till > 0 and keep_ms or 0)
  redis.call('SET', budget.key, string.format('%.3f %.0f', budget.tat, budget.till), 'PX', math.ceil(last) + 1)
  if budget.till > 0 then
    local index = prefix .. 'open:' .. budget.owner
    redis.call('ZADD', index, budget.till, budget.member)
    redis.call('ZREMRANGEBYSCORE', index, '-inf', now - keep_ms)
    redis.call('PEXPIRE', index, 2 * keep_ms)
  end
end

local function spend(budget, verdict)
  budget.tat = math.min(budget.tat + budget.step, now + budget.window)
  if verdict == PROBE then budget.till = now + budget.cool_down end
  store(budget)
end

local function opens(budget)
  if budget.till > 0 or budget.cool_down == 0 then return false end
  budget.till = now + budget.cool_down
  store(budget)
  return true
end

local answers = {}
local i = 3
while i <= #ARGV do
  local spends, count = ARGV[i] == '1', tonumber(ARGV[i + 1])
  local asked, refused_by = {}, nil
  for n = 1, count do
    local budget = budget_at(i + 2 + 5 * (n - 1))
    local verdict, retry = judge(budget)
    answers[#answers + 1] = verdict
    asked[n] = { budget = budget, verdict = verdict, place = #answers }
    if verdict == REFUSED and not refused_by then refused_by = asked[n] end
    answers[#answers + 1] = math.max(0, budget.left - 1)
    answers[#answers + 1] = math.ceil(retry)
  end
  if spends and refused_by then
    if opens(refused_by.budget) then answers[refused_by.place] = OPENED end
  elseif spends then
    for _, each in ipairs(asked) do spend(each.budget, each.verdict) end
  end
  i = i + 2 + 5 * count
end
return answers
