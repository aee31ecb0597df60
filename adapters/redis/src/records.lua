-- Returns the epoch (the value of KEYS[2]), followed by members of the index KEYS[1], each with the
-- value of its record, or with nil if there is no such record. The name of a record is ARGV[1] and
-- the member. The command ARGV[2] reads the index from rank ARGV[3] to rank ARGV[4]. If ARGV[5] is
-- not empty, the reply has only the members with a higher score than ARGV[5].
local reply = { redis.call('GET', KEYS[2]) }
local listed = redis.call(ARGV[2], KEYS[1], ARGV[3], ARGV[4], 'WITHSCORES')
local above = tonumber(ARGV[5])
local count = 0
for position = 1, #listed, 2 do
    local member, score = listed[position], tonumber(listed[position + 1])
    if not above or score > above then
        count = count + 1
        reply[2 * count] = member
        reply[2 * count + 1] = redis.call('GET', ARGV[1] .. member)
    end
end
return reply
