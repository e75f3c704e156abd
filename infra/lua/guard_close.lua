-- Close guards whose probe came through; their buckets stay as full as they are.
-- ARGV: prefix, then owner and member in turn.
local prefix = ARGV[1] .. 'guard:'
for i = 2, #ARGV, 2 do
  local owner, member = ARGV[i], ARGV[i + 1]
  local key = prefix .. owner .. ':' .. member
  local text = redis.call('GET', key)
  if text then redis.call('SET', key, string.match(text, '^(%S+)') .. ' 0', 'KEEPTTL') end
  redis.call('ZREM', prefix .. 'open:' .. owner, member)
end
