-- The records of the index KEYS[1], whose names begin with ARGV[1]; or, if more is given, of those
-- members. The answer is each member with its value, or with nothing.
local members = {}
if #ARGV > 1 then
    for at = 2, #ARGV do
        members[at - 1] = ARGV[at]
    end
else
    members = redis.call('ZRANGE', KEYS[1], 0, -1)
end
local answer = {}
for number, member in ipairs(members) do
    answer[2 * number - 1] = member
    answer[2 * number] = redis.call('GET', ARGV[1] .. member)
end
return answer
