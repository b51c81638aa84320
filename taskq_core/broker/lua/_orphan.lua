-- is_orphan: return whether a key is an aggregation set that is missing in the list of sets. Return false while the queue
-- is being removed. The key of an unlisted group with a colon in its name has the same form, so the group of the first
-- member decides.
local function is_orphan(prefix, sets, groups, removed, key)
  local name = string.sub(key, #prefix + 3)
  if not string.match(name, '^.+:[^:]*$') or redis.call('TYPE', key).ok ~= 'zset' then
    return false
  elseif redis.call('ZSCORE', sets, key) or redis.call('SISMEMBER', groups, name) == 1 then
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
