-- Unique locks of tasks. The field `unique_key` of a task's hash is the key of its lock. The field `taskq_unique` is the
-- lock rule: "<until><seconds>", followed by a colon and argument names if only some arguments count.
--   until    s  while the task waits to run    f  until it is completed or archived    w  while it exists
--   seconds  time for which the lock is held from the start of the task; 0 to hold it without expiry
-- A lock without a rule is Asynq's: it is held until it expires, or until the task succeeds or is deleted.
-- A script that takes, frees or renews locks defines `unique_prefix` before it includes this file: the prefix of the
-- queue's locks, "asynq:{<queue>}:unique:".

-- is_lock: return whether a key from a hash or a message is a unique lock of this queue. Any other key is ignored, because
-- producers choose it and the script runs with the rights of the worker.
local function is_lock(name)
  return type(name) == 'string' and string.sub(name, 1, #unique_prefix) == unique_prefix
end

-- covers: return whether a lock rule lets a task hold its lock while the task is in a state.
local function covers(rule, state)
  local till = string.sub(rule, 1, 1)
  if till == 's' then
    return state ~= 'active' and state ~= 'completed' and state ~= 'archived'
  end
  return till ~= 'f' or (state ~= 'completed' and state ~= 'archived')
end

-- is_held: return whether the task that a unique lock names may hold this lock. The task must exist, have a state that
-- its lock rule covers, and name no other lock. Go workers and manual deletions leave locks behind whose task may not
-- hold them.
local function is_held(lock, task_key)
  local fields = redis.pcall('HMGET', task_key, 'state', 'taskq_unique', 'unique_key')
  if fields.err then
    return true -- the task is not a hash, so its state is unknown: do not release the lock
  end
  return fields[1] and covers(fields[2] or '', fields[1]) and (fields[3] or lock) == lock
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
