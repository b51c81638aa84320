-- Renewing and exchanging locks, for scripts that run or change tasks. Needs `_unique`. A file apart, so that a producer
-- needs no right to these commands.

-- renew: a running task holds its lock for `seconds` more, at least. Nobody else's is touched.
local function renew(rule, lock, id, seconds)
  if not is_lock(lock) then
    return
  end
  local holder = redis.pcall('GET', lock)
  if holder == id then
    local left_ms = redis.call('PTTL', lock)
    if left_ms >= 0 and left_ms < seconds * 1000 then
      redis.call('EXPIRE', lock, seconds)
    end
  elseif holder == false then
    if rule and string.match(rule, '^%a0') then
      redis.call('SET', lock, id)
    else
      redis.call('SET', lock, id, 'EX', seconds)
    end
  end
end

-- exchange: a task that holds a lock holds another one in its stead, for the time that was left.
local function exchange(old, new, id)
  if not is_lock(old) or not is_lock(new) or redis.pcall('GET', old) ~= id then
    return
  end
  local left_ms = redis.call('PTTL', old)
  redis.call('DEL', old)
  if left_ms > 0 then
    redis.call('SET', new, id, 'PX', left_ms)
  elseif left_ms == -1 then
    redis.call('SET', new, id)
  end
end
