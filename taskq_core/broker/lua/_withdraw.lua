-- withdraw: take a task that does not run out of the structure that its state names. False, and nothing written, if it is
-- not there; an error without the right to remove it. A pending one is searched from the end of the next to run.
-- The removal comes before every other write: Redis accepts it also over maxmemory, and with it the writes that follow.
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
    error(said) -- the user may not change this structure
  end
  return type(removed) == 'number' and removed > 0
end

-- leave_group: take the field `group` off a task that has left its group for `state`. Go's forwarder puts a due task with
-- this field in the group without listing the group, where nothing runs it. A scheduled task keeps the name in
-- `taskq_group`, which only our forwarder reads, and joins its group when it is due. In every other state it runs alone.
local function leave_group(key, group, state)
  if state ~= 'scheduled' then
    redis.call('HDEL', key, 'group', 'taskq_group')
  elseif group then
    redis.call('HDEL', key, 'group')
    redis.call('HSET', key, 'taskq_group', group)
  end
end

-- structures: the keys by the state whose tasks they hold, from the KEYS of a script in this order.
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
