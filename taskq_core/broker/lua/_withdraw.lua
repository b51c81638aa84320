-- withdraw: remove a task that is not running from the list or set of its state. If that list or set does not contain
-- the task, return false and write nothing. Raise an error if the Redis user may not remove the task. The search for a
-- pending task starts with the next task to run. Scripts call this function before any other write: after this removal,
-- even a full Redis allows the later writes.
local function withdraw(keys, id, state, group)
  local removed
  if state == 'pending' then
    removed = redis.pcall('LREM', keys.pending, -1, id)
  elseif state == 'aggregating' then
    local members = group and keys.prefix .. 'g:' .. group
    removed = members and redis.pcall('ZREM', members, id)
    if removed == 1 and redis.call('ZCARD', members) == 0 then
      redis.pcall('SREM', keys.groups, group)
    end
  else
    removed = keys[state] and redis.pcall('ZREM', keys[state], id)
  end
  local said = type(removed) == 'table' and type(removed.err) == 'string' and removed.err or ''
  if string.find(said, 'ACL failure', 1, true) or string.find(said, 'executing the script can', 1, true) then
    error(said) -- the Redis user may not change this structure
  end
  return type(removed) == 'number' and removed > 0
end

-- leave_group: delete the field `group` of a task that has left its group for `state`. Otherwise Go's forwarder would add
-- the due task to the group without listing the group, and the task would never run. A scheduled task keeps the name in
-- `taskq_group`, which only taskq's forwarder reads, and joins its group when it is due. In other states it runs alone.
local function leave_group(key, group, state)
  if state ~= 'scheduled' then
    redis.call('HDEL', key, 'group', 'taskq_group')
  elseif group then
    redis.call('HDEL', key, 'group')
    redis.call('HSET', key, 'taskq_group', group)
  end
end

-- structures: return the keys of a queue's lists and sets by state. They are the first KEYS of a script.
local function structures(prefix)
  return {
    prefix = prefix,
    pending = KEYS[1],
    scheduled = KEYS[2],
    retry = KEYS[3],
    archived = KEYS[4],
    completed = KEYS[5],
    groups = KEYS[6],
  }
end
