-- The unique lock of a task, named in the field `unique_key` of its hash. `taskq_unique` beside it is the rule by which
-- it is held: "<until><seconds>", and behind a colon the names of the arguments that count, where not all do.
--   until    s  while the task waits to run    f  until it is completed or archived    w  while it exists
--   seconds  how long it is held from the start on, 0 for as long as that
-- Without a rule it is Asynq's lock: held for its time, or until the task has succeeded or is deleted.
-- A script that takes, frees or renews locks defines `unique_prefix` before it includes this file: the prefix of the
-- queue's locks, "asynq:{<queue>}:unique:".

-- is_lock: whether a name that a hash or a message holds is a unique lock of this queue. Any producer of the queue can
-- choose this name, and the script runs with the rights of the worker, so every other name is ignored.
local function is_lock(name)
  return type(name) == 'string' and string.sub(name, 1, #unique_prefix) == unique_prefix
end

-- covers: whether a rule lets a task hold its lock in a state.
local function covers(rule, state)
  local till = string.sub(rule, 1, 1)
  if till == 's' then
    return state ~= 'active' and state ~= 'completed' and state ~= 'archived'
  end
  return till ~= 'f' or (state ~= 'completed' and state ~= 'archived')
end

-- is_held: whether the task that a lock names may hold it: it is there, in a state that its rule covers, and names no
-- other lock. A Go worker, or a deletion by hand, leaves locks for which this is false.
local function is_held(lock, task_key)
  local fields = redis.pcall('HMGET', task_key, 'state', 'taskq_unique', 'unique_key')
  if fields.err then
    return true -- its key is not a hash, so the lock is kept
  end
  return fields[1] and covers(fields[2] or '', fields[1]) and (fields[3] or lock) == lock
end

-- release: free a lock if this task holds it.
local function release(lock, id)
  if is_lock(lock) and redis.pcall('GET', lock) == id then
    redis.call('DEL', lock)
  end
end

-- follow: update the lock of a task with a rule that has entered a state. A lock with a time that was
-- freed is not taken again.
local function follow(rule, lock, id, state)
  if not rule or not is_lock(lock) then
    return
  elseif not covers(rule, state) then
    release(lock, id)
  elseif string.match(rule, '^%a0') then
    redis.pcall('SET', lock, id, 'NX')
  end
end

-- is_taken: whether another task holds a lock, and may.
local function is_taken(lock, id, task_prefix)
  if not is_lock(lock) then
    return false
  end
  local holder = redis.pcall('GET', lock)
  return type(holder) == 'table' or (holder and holder ~= id and is_held(lock, task_prefix .. holder))
end

-- lost_lock: the lock that a task should hold without expiry but does not, if there is one.
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
