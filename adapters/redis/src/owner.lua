-- Returns the value of KEYS[1], and makes the key live for at least ARGV[1] milliseconds from now
-- on.
local user = redis.call('GET', KEYS[1])
if user and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return user
