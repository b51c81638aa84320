-- The unique lock of a task, named in the field `unique_key` of its hash. `taskq_unique` beside it is the rule by which
-- it is held: "<until><seconds>", and behind a colon the names of the arguments that count, where not all do.
--   until    s  while the task waits to run    f  until it is completed or archived    w  while it exists
--   seconds  how long it is held from the start on, 0 for as long as that
-- Without a rule it is Asynq's lock: held for its time, or until the task has succeeded or is deleted.

-- covers: whether a rule lets a task hold its lock in a state.
local function covers(rule, state)
  local till = string.sub(rule, 1, 1)
  if till == 's' then
    return state ~= 'active' and state ~= 'completed' and state ~= 'archived'
  end
  return till ~= 'f' or (state ~= 'completed' and state ~= 'archived')
end

-- is_held: whether the task that a lock names may hold it: it is there, in a state that its rule covers, and names no
-- other lock. A Go worker, or whoever deletes by hand, leaves locks behind of which none of this is true.
local function is_held(lock, task_key)
  local fields = redis.pcall('HMGET', task_key, 'state', 'taskq_unique', 'unique_key')
  if fields.err then
    return true -- a key of another type tells nothing
  end
  return fields[1] and covers(fields[2] or '', fields[1]) and (fields[3] or lock) == lock
end

-- release: free a lock if this task holds it. Its name comes from a hash, so it may be any key.
local function release(lock, id)
  if lock and lock ~= '' and redis.pcall('GET', lock) == id then
    redis.call('DEL', lock)
  end
end

-- follow: what becomes of the lock of a task with a rule that comes to stand in a state. A lock with a time that was
-- freed is not taken again.
local function follow(rule, lock, id, state)
  if not rule or not lock or lock == '' then
    return
  elseif not covers(rule, state) then
    release(lock, id)
  elseif string.match(rule, '^%a0') then
    redis.pcall('SET', lock, id, 'NX')
  end
end

-- is_taken: whether another task holds a lock, and may.
local function is_taken(lock, id, task_prefix)
  local holder = redis.pcall('GET', lock)
  return type(holder) == 'table' or (holder and holder ~= id and is_held(lock, task_prefix .. holder))
end

-- lost_lock: the lock that a task of the queue should hold without an end while nobody does, if there is one.
local function lost_lock(task_key, prefix)
  local fields = redis.pcall('HMGET', task_key, 'taskq_unique', 'unique_key', 'state', 'msg')
  local rule, lock = fields[1], fields[2]
  if not rule or not lock or not fields[3] or not fields[4] then
    return nil
  elseif not string.match(rule, '^%a0') or not covers(rule, fields[3]) then
    return nil
  elseif string.sub(lock, 1, #prefix + 7) ~= prefix .. 'unique:' or redis.call('EXISTS', lock) == 1 then
    return nil
  end
  return lock
end
