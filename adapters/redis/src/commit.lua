-- Applies a change to KEYS, which are all in one slot. ARGV holds the steps of the change. Each
-- step is four values: an operation, the number of the key in KEYS, and two operands. The first
-- steps are conditions. If a condition is not met, the script stops and returns the number of that
-- condition, counted from 1. Otherwise it returns 0. The steps and conditions come from Rust: those
-- of a session from write_session.rs, those of a user's epoch from epoch.rs.
for position = 1, #ARGV, 4 do
    local operation, key = ARGV[position], KEYS[tonumber(ARGV[position + 1])]
    local first, second = ARGV[position + 2], ARGV[position + 3]
    local is_met = true
    if operation == 'is' then
        is_met = redis.call('GET', key) == first
    elseif operation == 'absent' then
        is_met = redis.call('EXISTS', key) == 0
    elseif operation == 'absent or is' then
        local value = redis.call('GET', key)
        is_met = not value or value == first
    elseif operation == 'highest' then
        local count, min_score = string.match(first, '^(%d+) (.*)$')
        local members = redis.call('ZREVRANGEBYSCORE', key, '+inf', min_score, 'LIMIT', 0, count)
        is_met = table.concat(members, ' ') == second
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
        local other, prefix = string.match(second, '^(%d+) (.*)$')
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', first, 'LIMIT', 0, 100)) do
            redis.call('DEL', prefix .. member)
            redis.call('ZREM', key, member)
            redis.call('ZREM', KEYS[tonumber(other)], member)
        end
    end
    if not is_met then
        return (position + 3) / 4
    end
end
return 0
