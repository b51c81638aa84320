-- Functions that take, free and renew unique locks. A script defines `unique_prefix` before it includes this file: the
-- prefix of the queue's locks, "asynq:{<queue>}:unique:".
-- include _held

-- is_lock: return whether a key from a hash or a message is a unique lock of this queue. Any other key is ignored, because
-- producers choose it and the script runs with the rights of the worker.
local function is_lock(name)
  return type(name) == 'string' and string.sub(name, 1, #unique_prefix) == unique_prefix
end

-- release: free a unique lock if this task holds the lock.
local function release(lock, id)
  if is_lock(lock) and redis.pcall('GET', lock) == id then
    redis.call('DEL', lock)
  end
end

-- follow: take or free the lock of a task with a lock rule, because the task has entered a new state. A freed lock with
-- an expiry is not taken again.
local function follow(rule, lock, id, state)
  if not rule or not is_lock(lock) then
    return
  elseif not covers(rule, state) then
    release(lock, id)
  elseif string.match(rule, '^%a0') then
    redis.pcall('SET', lock, id, 'NX')
  end
end

-- is_taken: return whether another task rightfully holds a lock.
local function is_taken(lock, id, task_prefix)
  if not is_lock(lock) then
    return false
  end
  local holder = redis.pcall('GET', lock)
  return type(holder) == 'table' or (holder and holder ~= id and is_held(lock, task_prefix .. holder))
end

-- lost_lock: return the lock that a task should hold without expiry but does not hold, or nil.
local function lost_lock(task_key)
  local fields = redis.pcall('HMGET', task_key, 'taskq_unique', 'unique_key', 'state', 'msg')
  local rule, lock = fields[1], fields[2]
  if not rule or not lock or not fields[3] or not fields[4] then
    return nil
  elseif not string.match(rule, '^%a0') or not covers(rule, fields[3]) then
    return nil
  elseif not is_lock(lock) or redis.call('EXISTS', lock) == 1 then
    return nil
  end
  return lock
end
