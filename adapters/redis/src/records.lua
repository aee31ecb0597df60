-- The records of the index KEYS[1], whose names begin with ARGV[1]. The answer is each member with its
-- value, or with nothing.
local answer = {}
for number, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    answer[2 * number - 1] = member
    answer[2 * number] = redis.call('GET', ARGV[1] .. member)
end
return answer
