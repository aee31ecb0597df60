-- Returns the epoch KEYS[2] and records that the index KEYS[1] lists. Each member is followed by
-- the value of its record, or by nothing if there is no such record. The names of the records begin
-- with ARGV[1]. The command ARGV[2] reads the index from rank ARGV[3] to rank ARGV[4]. If ARGV[5]
-- is given, members whose score is not above it are left out.
local reply = { redis.call('GET', KEYS[2]) }
local listed = redis.call(ARGV[2], KEYS[1], ARGV[3], ARGV[4], 'WITHSCORES')
local above = tonumber(ARGV[5])
local number = 0
for at = 1, #listed, 2 do
    if not above or tonumber(listed[at + 1]) > above then
        number = number + 1
        reply[2 * number] = listed[at]
        reply[2 * number + 1] = redis.call('GET', ARGV[1] .. listed[at])
    end
end
return reply
