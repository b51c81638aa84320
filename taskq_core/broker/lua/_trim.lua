-- forget: delete one task of `set` with its hash, and its unique lock where it still holds it. Needs `_unique`.
local function forget(set, task_key, id)
  release(redis.pcall('HGET', task_key, 'unique_key'), id)
  redis.call('DEL', task_key)
  redis.call('ZREM', set, id)
end

-- trim: drop the oldest archived tasks beyond `max_size` or archived at `cutoff_s` or before; at most 100 a call.
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
