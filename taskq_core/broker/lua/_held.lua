-- Unique locks of tasks. The field `unique_key` of a task's hash is the key of its lock. The field `taskq_unique` is the
-- lock rule: "<until><seconds>", followed by a colon and argument names if only some arguments count.
--   until    s  while the task waits to run    f  until it is completed or archived    w  while it exists
--   seconds  time for which the lock is held from the start of the task; 0 to hold it without expiry
-- A lock without a rule is Asynq's: it is held until it expires, or until the task succeeds or is deleted.

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
-- hold them. The archived original of a move keeps its lock, because it may be put back.
local function is_held(lock, task_key)
  local fields = redis.pcall('HMGET', task_key, 'state', 'taskq_unique', 'unique_key', 'taskq_copied')
  if fields.err then
    return true -- the task is not a hash, so its state is unknown: do not release the lock
  end
  local is_original = fields[4] and fields[1] == 'archived'
  return fields[1] and (is_original or covers(fields[2] or '', fields[1])) and (fields[3] or lock) == lock
end
