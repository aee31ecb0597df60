-- The epoch KEYS[2], and the records of the index KEYS[1] from place ARGV[3] to ARGV[4], in the order of the
-- command ARGV[2]; their names begin with ARGV[1]. Each member is followed by its value, or by nothing.
local answer = { redis.call('GET', KEYS[2]) }
for number, member in ipairs(redis.call(ARGV[2], KEYS[1], ARGV[3], ARGV[4])) do
    answer[2 * number] = member
    answer[2 * number + 1] = redis.call('GET', ARGV[1] .. member)
end
return answer
