-- is_unowned: return whether a steps record or the values that a task emitted belong to no task: no task has this id, or
-- a later one that has another record. A task in quarantine still has its record. A record that expires within an hour is
-- left alone: readers of the values have a minute after a task without retention has ended.
local function is_unowned(prefix, own, key)
  local kind, id = string.match(string.sub(key, #own + 1), '^(%l+):(.+)$')
  local wanted = kind == 'steps' and 'hash' or kind == 'stream' and kind
  if not wanted or redis.call('TYPE', key).ok ~= wanted then
    return false
  end
  local ttl_ms = redis.call('PTTL', key)
  if ttl_ms >= 0 and ttl_ms <= 3600000 then
    return false
  elseif redis.call('EXISTS', own .. 'quarantine:' .. id) == 1 then
    return false
  end
  local mark = redis.pcall('HGET', prefix .. 't:' .. id, 'taskq_steps')
  if type(mark) == 'table' then
    return false -- the key of the task has another type
  end
  local of = mark and kind == 'steps' and redis.pcall('HGET', key, 'of')
  return not mark or (of and of ~= mark) == true
end
