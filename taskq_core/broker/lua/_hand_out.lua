-- Handing out tasks: the rest of a script with the keys and arguments of `dequeue`, which has seen that the queue is not
-- paused, and that active tasks, leases and wake tokens are keys of their types. It needs `_clock`, `_wake`, the time, the
-- `reply` with its first four, the end of the leases as `expiry`, and how many `tokens` there are.
local limit = tonumber(ARGV[4])
local most
if ARGV[11] ~= '' then
-- include _most_active
  most = most_active(KEYS[7], ARGV[11])
  limit = math.min(limit, most - redis.call('LLEN', KEYS[2]))
  if limit < 1 then
    return reply -- and no token: the worker that ends one of them looks again
  end
end
local ids = redis.call('RPOP', KEYS[1], limit)
if not ids then
  return reply
end
local owner, started = ARGV[2] .. '.' .. ARGV[3] .. ':' .. expiry, string.sub(now_ns, 1, -7)
local task_prefix, max_bytes = ARGV[7], tonumber(ARGV[5])
local waits = ARGV[9] == '1' and {}
local call = redis.call

-- start_plain: start a task that has the three fields with which Asynq stores a waiting task, and no others, as most do:
-- there is nothing to look for then, and to count them costs Redis less than to ask for the others by name. Returns its
-- message and when it came. Nothing if it turns out to be another one, which the caller looks at as if nothing was done;
-- the third value is true if the hash does not exist.
local function start_plain(key)
  local size = redis.pcall('HLEN', key) -- an error for a key of another type
  if size ~= 3 then
    return nil, nil, size == 0
  end
  local message = call('HGET', key, 'msg')
  local since = waits and call('HGET', key, 'pending_since')
  if message and call('HDEL', key, 'pending_since') == 1 then
    if call('HSET', key, 'state', 'active', 'taskq_owner', owner, 'taskq_started', started) == 2 then
      return message, since
    end
  end
end

local limits

-- is_permitted: whether a task may run now; a deleted task gives back its places. Includes all it needs, which is
-- made only where there are limits.
local function is_permitted(id, key, limited, is_gone)
-- include _place
-- include _limits
  limits = limits or limiter(string.sub(task_prefix, 1, -3), now_s, now_ns, now_ms)
  return is_gone and limits.let_go(id, key) or limits.hand_out(id, key, limited, redis.call('HGET', key, 'taskq_permit'))
end

-- start_other_here: make the function that starts any task, with its includes; called for the first task that is not plain. It
-- returns message and time as start_plain does, nothing where the task is not started.
local start_other
local foreign_locks = 0
local function start_other_here()
local unique_prefix = string.sub(task_prefix, 1, -3) .. 'unique:'
-- include _unique
-- include _renew
-- include _cancelled
  local function drop(id, key, lock)
    redis.call('DEL', key)
    release(lock, id)
  end

  return function(id, key)
    local fields =
      redis.pcall('HMGET', key, 'msg', 'taskq_step', 'taskq_wait', 'taskq_limit', 'unique_key', 'pending_since')
    local message, limited, lock = fields[1], fields[4], fields[5]
    if lock and not is_lock(lock) then
      lock, foreign_locks = nil, foreign_locks + 1
    end
    if not message then
      if message == false then -- nil: a key of another type
        drop(id, key, lock) -- without a message, the hash would only block its id
      end
      reply[3] = reply[3] + 1
      return nil
    elseif fields[2] and is_cancelled(KEYS[5], fields[2]) then
      if limited then
        is_permitted(id, key, limited, true)
      end
      drop(id, key, lock)
      return nil
    elseif limited and not is_permitted(id, key, limited) then
      return nil -- it waits for its limit now
    end
    redis.call('HSET', key, 'state', 'active', 'taskq_owner', owner, 'taskq_started', started)
    redis.call('HDEL', key, 'pending_since')
    if lock then
      local rule = redis.call('HGET', key, 'taskq_unique')
      if rule and not covers(rule, 'active') then
        release(lock, id)
      else
        renew(rule, lock, id, ARGV[10])
      end
    end
    if fields[3] == '2' then
      redis.call('PUBLISH', ARGV[8], id)
    end
    return message, fields[6]
  end
end

-- The tasks to hand out are gathered in `ids` itself: as many of them as were looked at before have left their places.
-- Ids without a message are replaced by others, so that many of them do not hold up the tasks behind them.
local count, bytes, length = 0, 0, 0
local batch, looked_at, dropped = ids, 0, nil
repeat
  dropped = reply[3]
  for i = 1, #batch do
    local id = batch[i]
    if bytes >= max_bytes or count >= limit then
      for j = #batch, i, -1 do
        redis.call('RPUSH', KEYS[1], batch[j])
      end
      break
    end
    local key = task_prefix .. id
    local message, since, is_gone = start_plain(key)
    if is_gone then
      reply[3] = reply[3] + 1
    elseif not message then
      start_other = start_other or start_other_here()
      message, since = start_other(id, key)
    end
    if message then
      bytes, count = bytes + #message, count + 1
      if length ~= #id then
        length = count == 1 and #id -- or false, from the first on that is of another length
      end
      ids[count] = id
      reply[2 * count + 3], reply[2 * count + 4] = id, message
      if waits then
        local since_ns = tonumber(since or '')
        waits[count] = since_ns and whole(math.max(0, (tonumber(now_ns) - since_ns) / 1000000)) or ''
      end
    end
  end
  looked_at = looked_at + #batch
  batch = reply[3] > dropped and count < limit and bytes < max_bytes and looked_at < 1000 and redis.call('RPOP', KEYS[1], 100)
until not batch

-- A small sorted set Redis keeps as a list, in which it searches every member from the start; a set that once had a
-- long member it keeps sorted. So a batch of more than a few brings one along, of blanks, as no id is, and it is gone
-- before another client can see it.
local long = count > 8 and count < 128 and string.rep(' ', 65)
for first = 1, count, 200 do
  local last_index = math.min(first + 199, count)
  redis.call('LPUSH', KEYS[2], unpack(ids, first, last_index))
  local leases, size = {}, 0
  for i = first, last_index do
    leases[size + 1], leases[size + 2] = expiry, ids[i]
    size = size + 2
  end
  if long then
    leases[size + 1], leases[size + 2] = expiry, long
  end
  redis.call('ZADD', KEYS[3], unpack(leases))
  if long then
    redis.call('ZREM', KEYS[3], long)
  end
end
if count > 0 then
  local handed_out
  if length then -- most ids are of one length
    handed_out = length .. ':' .. table.concat(ids, length .. ':', 1, count)
  else
    local each = {}
    for i = 1, count do
      each[i] = #ids[i] .. ':' .. ids[i]
    end
    handed_out = table.concat(each)
  end
  redis.call('SET', KEYS[6], ARGV[3] .. ':' .. handed_out, 'EX', whole(math.max(120, tonumber(ARGV[6]))))
end
if limits then
  limits.finish()
end
if foreign_locks > 0 then
  reply[3] = reply[3] .. ' ' .. foreign_locks
end
if waits and count > 0 then
  reply[4] = table.concat(waits, ',') .. ','
end
if tokens == 0 and redis.call('LLEN', KEYS[1]) > 0 and (not most or redis.call('LLEN', KEYS[2]) < most) then
  wake(KEYS[5])
end
return reply
