-- Set the marker, unless the store lost something since the caller last looked. Returns 1 when it stands.
-- ARGV: prefix, sequence, the marker the caller last saw or '', the token it was given or ''.
local seq, seen, token = ARGV[2], ARGV[3], ARGV[4]
local stored = redis.call('GET', KEYS[1])
if stored then
  if seen ~= '' and tonumber(stored) < tonumber(seen) then return 0 end
  redis.call('SET', KEYS[1], seq)
  return 1
end
local fresh = seen == '' and token == ''
if not fresh and redis.call('GET', prefix .. 'rebuild') ~= token then return 0 end
redis.call('SET', KEYS[1], seq)
redis.call('DEL', prefix .. 'rebuild')
return 1
