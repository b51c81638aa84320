-- Deleting the members of a set that was turned into one task. Needs `_leave_active`, `_unique`
-- and `_lock`.

-- sweep: delete members, at most 100 and about 1 MiB of messages: the hash, the unique lock a member still holds, and
-- its place in the set. Returns how many.
local function sweep(keys, set)
  local ids = redis.call('ZRANGE', set, 0, 99)
  local bytes = 0
  for count, id in ipairs(ids) do
    local key = keys.prefix .. 't:' .. id
    local fields = redis.pcall('HMGET', key, 'state', 'unique_key', 'taskq_wait')
    if fields[1] == 'aggregating' then -- any other task was put there by another client
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
