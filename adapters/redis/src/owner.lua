-- The value of KEYS[1], which from now on lives for ARGV[1] milliseconds at least.
local user = redis.call('GET', KEYS[1])
if user and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return user
