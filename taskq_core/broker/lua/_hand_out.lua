-- Hand pending tasks to a worker. `dequeue` and `settle_and_dequeue` include this file as their last part, and it uses
-- their keys and arguments. The script has already checked that the queue is not paused, and that the lists of active
-- tasks and wake tokens and the set of leases have the right types. Needs the files `_clock` and `_wake`, and these
-- variables: the time, `reply` with its first four values, `expiry` (the end of the leases), and `tokens` (the number
-- of wake tokens).
local limit = tonumber(ARGV[4])
local most
if ARGV[11] ~= '' then
-- include _most_active
  most = most_active(KEYS[7], ARGV[11])
  limit = math.min(limit, most - redis.call('LLEN', KEYS[2]))
  if limit < 1 then
    return reply -- no wake token is needed: a worker that settles an active task dequeues again
  end
end
local ids = redis.call('RPOP', KEYS[1], limit)
if not ids then
  return reply
end
local owner, started = ARGV[2] .. '.' .. ARGV[3] .. ':' .. expiry, string.sub(now_ns, 1, -7)
local task_prefix, max_bytes, max_message = ARGV[7], tonumber(ARGV[5]), tonumber(ARGV[13])
local waits = ARGV[9] == '1' and {}
local call = redis.call

-- start_plain: start a task that has only the three fields with which Asynq stores a waiting task, as most tasks do.
-- Counting the fields (HLEN) costs Redis less than reading the optional fields by name. Returns the message and the time
-- at which the task became pending. Returns nothing, and changes nothing, if the task has other fields or its message is
-- too large. The third value is true if the hash does not exist.
local function start_plain(key)
  local size = redis.pcall('HLEN', key) -- pcall: the key may have another type
  if size ~= 3 then
    return nil, nil, size == 0
  elseif call('HSTRLEN', key, 'msg') > max_message then
    return nil
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

-- is_permitted: return whether the limits of a task allow a worker to run the task now. If the task is being deleted,
-- release its permits instead. The included functions are created only for tasks with limits.
-- included functions are created only for tasks with limits.
local function is_permitted(id, key, limited, is_gone)
-- include _place
-- include _limits
  limits = limits or limiter(string.sub(task_prefix, 1, -3), now_s, now_ns, now_ms)
  return is_gone and limits.release_permits(id, key) or limits.hand_out(id, key, limited, redis.call('HGET', key, 'taskq_permit'))
end

-- start_other_here: return a function that starts a task with any fields. Like start_plain, that function returns the
-- message and the time, or nothing if it did not start the task. It is created for the first task with other fields.
local start_other
local foreign_locks, too_large = 0, 0
local function start_other_here()
local unique_prefix = string.sub(task_prefix, 1, -3) .. 'unique:'
-- include _unique
-- include _renew
-- include _cancelled
-- include _forget_steps
-- include _message
  local function drop(id, key, lock)
    redis.call('DEL', key)
    forget_steps(string.sub(task_prefix, 1, -3), id)
    release(lock, id)
  end

  -- move a task with a message that is too large, or that begins with a zero byte and so is invalid, to quarantine
  local function set_aside(id, key, limited, lock, waited)
    if limited then
      is_permitted(id, key, limited, true)
    end
    local own_prefix = string.sub(KEYS[5], 1, -5)
    -- pcall: the key may have another type. Then the reconciler moves the task to quarantine once it has replaced the key
    if type(redis.pcall('ZADD', own_prefix .. 'quarantine', whole(now_s), id)) == 'number' then
      redis.call('RENAME', key, own_prefix .. 'quarantine:' .. id)
    end
    release(lock, id)
    if waited then
      redis.call('PUBLISH', ARGV[8], id)
    end
    too_large = too_large + 1
  end

  return function(id, key)
    local fields =
      redis.pcall('HMGET', key, 'taskq_step', 'taskq_wait', 'taskq_limit', 'unique_key', 'pending_since')
    local message, limited, lock = message_of(key, max_message), fields[3], fields[4]
    if lock and not is_lock(lock) then
      lock, foreign_locks = nil, foreign_locks + 1
    end
    if not message then
      if message == false then -- false: no message. nil: the key has another type
        drop(id, key, lock) -- delete a hash without a message, because it prevents new tasks with this id
      end
      reply[3] = reply[3] + 1
      return nil
    elseif fields[1] and is_cancelled(KEYS[5], fields[1]) then
      if limited then
        is_permitted(id, key, limited, true)
      end
      drop(id, key, lock)
      return nil
    elseif string.byte(message) == 0 then
      set_aside(id, key, limited, lock, fields[2])
      return nil
    elseif limited and not is_permitted(id, key, limited) then
      return nil -- the task waits for its limit now
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
    if fields[2] == '2' then
      redis.call('PUBLISH', ARGV[8], id)
    end
    return message, fields[5]
  end
end

-- The loop overwrites `ids` with the ids of started tasks, which are never more than the ids that were read. For each
-- id without a message the loop reads a further id, so that many such ids do not delay the tasks after them.
local count, bytes, length = 0, 0, 0
local batch, looked_at, dropped = ids, 0, nil
repeat
  dropped = reply[3] + too_large
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
        length = count == 1 and #id -- false as soon as two ids have different lengths
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
  batch = reply[3] + too_large > dropped and count < limit and bytes < max_bytes and looked_at < 1000 and redis.call('RPOP', KEYS[1], 100)
until not batch

-- Redis stores a small sorted set as a list and searches this list linearly. Once the set has contained a member longer
-- than 64 bytes, Redis stores the set as a skip list, which is faster for more than a few tasks. So the script adds a
-- member of 65 blanks, which is no valid task id, and removes this member again.
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
  if length then -- usually all ids of a batch have the same length
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
if foreign_locks + too_large > 0 then
  reply[3] = reply[3] .. ' ' .. foreign_locks .. ' ' .. too_large
end
if waits and count > 0 then
  reply[4] = table.concat(waits, ',') .. ','
end
if tokens == 0 and redis.call('LLEN', KEYS[1]) > 0 and (not most or redis.call('LLEN', KEYS[2]) < most) then
  wake(KEYS[5])
end
return reply
