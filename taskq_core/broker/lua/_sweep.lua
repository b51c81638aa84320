-- Delete the members of a combined set: an aggregation set whose members were combined into one stored task. Needs the
-- files `_leave_active`, `_unique` and `_lock`.

-- sweep: delete at most 100 members (about 1 MiB of messages): each hash, the unique lock that the member still holds, and
-- its entry in the set. Return the number of deleted members.
local function sweep(keys, set)
  local ids = redis.call('ZRANGE', set, 0, 99)
  local bytes = 0
  for count, id in ipairs(ids) do
    local key = keys.prefix .. 't:' .. id
    local fields = redis.pcall('HMGET', key, 'state', 'unique_key', 'taskq_wait')
    if fields[1] == 'aggregating' then -- leave alone a task that another client has stored under this id
      local lock = fields[2]
      if not lock then
        local message = redis.call('HGET', key, 'msg') or ''
        lock = lock_of(message)
        bytes = bytes + #message
      end
      redis.call('DEL', key)
      release(lock, id)
      announce(keys, fields[3], id)
    end
    redis.call('ZREM', set, id)
    if bytes >= 1048576 then
      return count
    end
  end
  return #ids
end
