-- Sessions whose process is known to be gone: the instant at which each was heard of becomes negative. A beat makes it
-- positive again. What is not there stays so. KEYS: the beats. ARGV: the sessions' ids.
local known, gone = redis.call('ZMSCORE', KEYS[1], unpack(ARGV)), {}
for place, id in ipairs(ARGV) do
  local heard = tonumber(known[place] or nil)
  if heard and heard > 0 then
    gone[#gone + 1], gone[#gone + 2] = string.format('%.0f', -heard), id
  end
end
if #gone > 0 then
  redis.call('ZADD', KEYS[1], 'XX', unpack(gone))
end
return redis.status_reply('OK')
