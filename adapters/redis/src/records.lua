-- The epoch KEYS[2], and the records of the index KEYS[1] from place ARGV[3] to ARGV[4], in the order of the
-- command ARGV[2], without those whose score is not above ARGV[5], if that is given; their names begin with
-- ARGV[1]. Each member is followed by its value, or by nothing.
local answer = { redis.call('GET', KEYS[2]) }
local listed = redis.call(ARGV[2], KEYS[1], ARGV[3], ARGV[4], 'WITHSCORES')
local above = tonumber(ARGV[5])
local number = 0
for at = 1, #listed, 2 do
    if not above or tonumber(listed[at + 1]) > above then
        number = number + 1
        answer[2 * number] = listed[at]
        answer[2 * number + 1] = redis.call('GET', ARGV[1] .. listed[at])
    end
end
return answer
