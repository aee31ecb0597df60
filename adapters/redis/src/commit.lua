-- A change of the keys KEYS, all of one slot. ARGV is its steps, of four each: a word, the number of the
-- key, and two values. The conditions come first; one that does not hold ends it, and its number is the
-- answer. When all has been done, that is 0.
for at = 1, #ARGV, 4 do
    local word, key = ARGV[at], KEYS[tonumber(ARGV[at + 1])]
    local one, other = ARGV[at + 2], ARGV[at + 3]
    local holds = true
    if word == 'is' then
        holds = redis.call('GET', key) == one
    elseif word == 'absent' then
        holds = redis.call('EXISTS', key) == 0
    elseif word == 'absent or is' then
        local value = redis.call('GET', key)
        holds = not value or value == one
    elseif word == 'lists' then
        local members = redis.call('ZRANGE', key, 0, -1)
        table.sort(members)
        holds = table.concat(members, ' ') == one
    elseif word == 'set' then
        if other == '' then
            redis.call('SET', key, one)
        elseif other == 'as before' then
            redis.call('SET', key, one, 'KEEPTTL')
        else
            redis.call('SET', key, one, 'PX', other)
        end
    elseif word == 'add' then
        redis.call('ZADD', key, one, other)
    elseif word == 'keep' then
        if redis.call('PTTL', key) < tonumber(one) then
            redis.call('PEXPIRE', key, one)
        end
    elseif word == 'delete' then
        redis.call('DEL', key)
    elseif word == 'remove' then
        redis.call('ZREM', key, one)
    elseif word == 'prune' then
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', one, 'LIMIT', 0, 100)) do
            redis.call('DEL', other .. member)
            redis.call('ZREM', key, member)
        end
    end
    if not holds then
        return (at + 3) / 4
    end
end
return 0
