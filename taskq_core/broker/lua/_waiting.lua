-- wait_of: return for what a scheduled task waits, as "<end, Unix ms, or '-'> <wait>" (see `_steps`). Return '' if the
-- task does not wait for an event. `mark` is the task's field taskq_steps.
local function wait_of(own, id, mark)
  local found = mark and redis.pcall('HMGET', own .. 'steps:' .. id, 'of', 'waiting')
  return found and found[1] == mark and found[2] or ''
end
