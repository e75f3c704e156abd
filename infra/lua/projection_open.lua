-- How many messages in certain states each of many agents has, out of the indexes alone.
-- ARGV: prefix, states joined by commas, then owner and agent in turn. Returns {'ok', number of each …} or {'rebuilding'}.
if redis.call('EXISTS', KEYS[1]) == 0 then return { 'rebuilding' } end
local reply = { 'ok' }
for i = 3, #ARGV, 2 do
  local n = 0
  for state in string.gmatch(ARGV[2], '[^,]+') do
    n = n + redis.call('ZCARD', agent_state_key(ARGV[i], ARGV[i + 1], state))
  end
  reply[#reply + 1] = n
end
return reply
