-- Returns the value of the owner key KEYS[1], and makes the key expire in ARGV[1] milliseconds or
-- later.
local user = redis.call('GET', KEYS[1])
if user and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return user
