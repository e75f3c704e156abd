-- Read the marker. Where it is absent, plant a token (ARGV[2], unless one is there) that vanishes with the next flush.
local epoch = redis.call('GET', KEYS[1])
if epoch then return { epoch, '' } end
redis.call('SETNX', prefix .. 'rebuild', ARGV[2])
return { '', redis.call('GET', prefix .. 'rebuild') }
