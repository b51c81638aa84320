-- erase: delete a task after `withdraw` has removed it from the list or set of its state: its hash, its unique lock and
-- its steps. `lock`, `waiter` and `mark` are its fields unique_key, taskq_wait and taskq_steps. Needs the files
-- `_forget_steps`, `_leave_active`, `_lock` and `_unique`.
local function erase(keys, id, key, state, lock, waiter, mark)
  local message = state == 'aggregating' and redis.call('HGET', key, 'msg')
  redis.call('DEL', key)
  if mark then
    forget_steps(keys.prefix, id)
  end
  release(lock or lock_of(message or ''), id)
  announce(keys, waiter, id)
end
