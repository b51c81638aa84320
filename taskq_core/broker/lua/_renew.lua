-- Functions that renew and exchange unique locks, for scripts that run or change tasks. Needs the file `_unique`. These
-- functions are in a separate file, so that a Redis user who may only enqueue needs no right to their commands.

-- renew: extend the unique lock of a running task to at least `seconds` from now. A lock of another task is not
-- changed.
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

-- exchange: replace the unique lock that a task holds by another lock. The new lock keeps the remaining time of the old
-- one.
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
