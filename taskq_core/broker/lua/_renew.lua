-- What is done to locks by those who run and change tasks. Needs nothing; apart from `_unique`, so that who only enqueues
-- needs no right to it.

-- renew: a running task holds its lock for `seconds` more, at least. Nobody else's is touched.
local function renew(rule, lock, id, seconds)
  local holder = redis.pcall('GET', lock)
  if holder == id then
    local left_ms = redis.call('PTTL', lock)
    if left_ms >= 0 and left_ms < seconds * 1000 then
      redis.call('EXPIRE', lock, seconds)
    end
  elseif holder == false and string.find(lock, ':unique:', 1, true) then
    if rule and string.match(rule, '^%a0') then
      redis.call('SET', lock, id)
    else
      redis.call('SET', lock, id, 'EX', seconds)
    end
  end
end

-- exchange: a task that holds a lock holds another one in its stead, for the time that was left.
local function exchange(old, new, id)
  if redis.pcall('GET', old) ~= id then
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
