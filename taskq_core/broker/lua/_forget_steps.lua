-- Keep or delete the record of a task's steps and the values that it emitted, together with the task. `prefix` is the prefix
-- of the queue's keys.

-- steps_keys: return the keys of the record and of the values.
local function steps_keys(prefix, id)
  local base, tag = string.match(prefix, '^([^{]*):({.*}:)$')
  local own = (base == 'asynq' and 'taskq:' or base .. ':taskq:') .. tag
  return own .. 'steps:' .. id, own .. 'stream:' .. id
end

-- keep_steps: keep the record and the values for a number of seconds.
local function keep_steps(prefix, id, seconds)
  local record, stream = steps_keys(prefix, id)
  redis.call('EXPIRE', record, seconds)
  redis.call('EXPIRE', stream, seconds)
end

-- forget_steps: delete the record and the values, because the task is deleted.
local function forget_steps(prefix, id)
  redis.call('DEL', steps_keys(prefix, id))
end
