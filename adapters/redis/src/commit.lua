-- Applies a change to KEYS, which are all in one slot. ARGV holds its steps, four values each: an
-- operation, the number of the key in KEYS, and two operands. The conditions come first. If a
-- condition fails, the script stops and returns the number of that step, counted from 1. If all
-- steps succeed, it returns 0.
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
    elseif word == 'highest' then
        local count, above = string.match(one, '^(%d+) (.*)$')
        local members = redis.call('ZREVRANGEBYSCORE', key, '+inf', above, 'LIMIT', 0, count)
        holds = table.concat(members, ' ') == other
    elseif word == 'rename' then
        if redis.call('EXISTS', key) == 1 then
            redis.call('RENAME', key, KEYS[tonumber(one)])
        end
    elseif word == 'unlink' then
        redis.call('UNLINK', key)
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
    elseif word == 'outlive' then
        local ttl = redis.call('PTTL', KEYS[tonumber(one)])
        local own = redis.call('PTTL', key)
        if ttl >= 0 and (own < 0 or own < ttl) then
            redis.call('PEXPIRE', key, ttl + 60000)
        end
    elseif word == 'delete' then
        redis.call('DEL', key)
    elseif word == 'remove' then
        redis.call('ZREM', key, one)
    elseif word == 'prune' then
        local index, prefix = string.match(other, '^(%d+) (.*)$')
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', one, 'LIMIT', 0, 100)) do
            redis.call('DEL', prefix .. member)
            redis.call('ZREM', key, member)
            redis.call('ZREM', KEYS[tonumber(index)], member)
        end
    end
    if not holds then
        return (at + 3) / 4
    end
end
return 0
