-- is_orphan: whether a key is an aggregation set that is not on the list of them. While the queue is being removed, none
-- is. A group whose name is not listed looks alike if it has a colon in it; the group of its first member decides.
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
