-- Functions that keep or delete the steps record of a task and the values that the task emitted. `prefix` is the prefix
-- of the queue's keys.

-- steps_keys: return the key of a task's steps record and the key of its emitted values.
local function steps_keys(prefix, id)
  local base, tag = string.match(prefix, '^([^{]*):({.*}:)$')
  local own = (base == 'asynq' and 'taskq:' or base .. ':taskq:') .. tag
  return own .. 'steps:' .. id, own .. 'stream:' .. id
end

-- keep_steps: keep the steps record and the emitted values of a task for a number of seconds.
local function keep_steps(prefix, id, seconds)
  local record, stream = steps_keys(prefix, id)
  redis.call('EXPIRE', record, seconds)
  redis.call('EXPIRE', stream, seconds)
end

-- forget_steps: delete the steps record and the emitted values of a task, because the task is deleted.
local function forget_steps(prefix, id)
  redis.call('DEL', steps_keys(prefix, id))
end
