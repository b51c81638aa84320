-- forget: delete one task from `set`, delete the hash of the task, and release its unique lock if the task still holds
-- the lock. Needs the files `_unique` and `_forget_steps`.
local function forget(set, task_key, id)
  local fields = redis.pcall('HMGET', task_key, 'unique_key', 'taskq_steps')
  release(fields[1], id)
  redis.call('DEL', task_key)
  if fields[2] then
    forget_steps(string.sub(task_key, 1, -#id - 3), id)
  end
  redis.call('ZREM', set, id)
end

-- trim: delete archived tasks, the oldest first, at most 100 per call. Tasks are deleted while there are more than
-- `max_size` archived tasks, or if they were archived at `cutoff_s` or before.
local function trim(archived, task_prefix, cutoff_s, max_size)
  local ids = redis.call('ZRANGE', archived, '-inf', whole(cutoff_s), 'BYSCORE', 'LIMIT', 0, 100)
  local excess = redis.call('ZCARD', archived) - max_size
  if #ids < 100 and excess > #ids then
    ids = redis.call('ZRANGE', archived, 0, math.min(excess, 100) - 1)
  end
  for _, id in ipairs(ids) do
    forget(archived, task_prefix .. id, id)
  end
  return #ids
end
