-- is_orphan: return whether a key is an aggregation set that is missing in the list of aggregation sets, or that has an
-- infinite deadline there. Return false while the queue is being removed. A group whose name contains a colon may have a
-- key of the same form. So the group that the first member names decides.
local function is_orphan(prefix, sets, groups, removed, key)
  local name = string.sub(key, #prefix + 3)
  if not string.match(name, '^.+:[^:]*$') or redis.call('TYPE', key).ok ~= 'zset' then
    return false
  end
  local deadline_s = redis.call('ZSCORE', sets, key)
  if (deadline_s and deadline_s ~= 'inf') or redis.call('SISMEMBER', groups, name) == 1 then
    return false
  elseif redis.call('EXISTS', unpack(removed)) > 0 then
    return false
  end
  local task = prefix .. 't:' .. redis.call('ZRANGE', key, 0, 0)[1]
  local group = redis.pcall('HGET', task, 'group')
  if type(group) == 'string' then
    return string.sub(name, 1, #group + 1) == group .. ':'
  end
  return redis.call('EXISTS', task) == 0
end
