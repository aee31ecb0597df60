-- Applies a change to KEYS, which are all in one slot. ARGV holds its steps, four values each: an
-- operation, the number of the key in KEYS, and two operands. The conditions come first. If a
-- condition fails, the script stops and returns the number of that step, counted from 1. If all
-- steps succeed, it returns 0.
for at = 1, #ARGV, 4 do
    local operation, key = ARGV[at], KEYS[tonumber(ARGV[at + 1])]
    local first, second = ARGV[at + 2], ARGV[at + 3]
    local holds = true
    if operation == 'is' then
        holds = redis.call('GET', key) == first
    elseif operation == 'absent' then
        holds = redis.call('EXISTS', key) == 0
    elseif operation == 'absent or is' then
        local value = redis.call('GET', key)
        holds = not value or value == first
    elseif operation == 'highest' then
        local count, above = string.match(first, '^(%d+) (.*)$')
        local members = redis.call('ZREVRANGEBYSCORE', key, '+inf', above, 'LIMIT', 0, count)
        holds = table.concat(members, ' ') == second
    elseif operation == 'rename' then
        if redis.call('EXISTS', key) == 1 then
            redis.call('RENAME', key, KEYS[tonumber(first)])
        end
    elseif operation == 'unlink' then
        redis.call('UNLINK', key)
    elseif operation == 'set' then
        if second == '' then
            redis.call('SET', key, first)
        elseif second == 'as before' then
            redis.call('SET', key, first, 'KEEPTTL')
        else
            redis.call('SET', key, first, 'PX', second)
        end
    elseif operation == 'add' then
        redis.call('ZADD', key, first, second)
    elseif operation == 'extend life' then
        if redis.call('PTTL', key) < tonumber(first) then
            redis.call('PEXPIRE', key, first)
        end
    elseif operation == 'outlive' then
        local ttl = redis.call('PTTL', KEYS[tonumber(first)])
        local own = redis.call('PTTL', key)
        if ttl >= 0 and (own < 0 or own < ttl) then
            redis.call('PEXPIRE', key, ttl + 60000)
        end
    elseif operation == 'delete' then
        redis.call('DEL', key)
    elseif operation == 'remove' then
        redis.call('ZREM', key, first)
    elseif operation == 'prune' then
        local index, prefix = string.match(second, '^(%d+) (.*)$')
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', first, 'LIMIT', 0, 100)) do
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
