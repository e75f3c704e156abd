-- Of (ulid, sequence) pairs, the ulids whose row is older than the sequence or absent.
local missing = {}
for i = 2, #ARGV, 2 do
  local seq = string.match(redis.call('GETRANGE', row_key(ARGV[i]), 0, 17), '^(%d+) ')
  if not seq or tonumber(seq) < tonumber(ARGV[i + 1]) then missing[#missing + 1] = ARGV[i] end
end
return missing
