-- forget_steps: delete the record of a task's steps and the values that it emitted, because the task is deleted. `prefix` is
-- the prefix of the queue's keys. Scripts call it only for tasks with the field taskq_steps.
local function forget_steps(prefix, id)
  local base, tag = string.match(prefix, '^([^{]*):({.*}:)$')
  local own = (base == 'asynq' and 'taskq:' or base .. ':taskq:') .. tag
  redis.call('DEL', own .. 'steps:' .. id, own .. 'stream:' .. id)
end
