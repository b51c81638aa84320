--[[
  dequeue: hand pending tasks to a worker, oldest first, each with a lease.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  list    active tasks
  KEYS[3]  zset    leases: id by expiry (Unix s)
  KEYS[4]  string  present while the queue is paused
  KEYS[5]  list    wake tokens
  KEYS[6]  string  what this worker's last call handed out: "<call>:" and each id as "<length>:<id>"
  KEYS[7]  hash    numbers of limits, as people set them
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  int     number of this call; a repeat with the same number hands out nothing new and returns the same tasks
  ARGV[4]  int     most tasks to take
  ARGV[5]  int     bytes of messages after which no further task is taken (the first is always taken)
  ARGV[6]  int     seconds of the lease
  ARGV[7]  string  prefix of task keys
  ARGV[8]  string  channel that tells of changes
  ARGV[9]  int     1 to tell how long each task was pending
  ARGV[10] int     seconds for which a task that starts holds its unique lock at least
  ARGV[11] int     most active tasks of the queue, '' for any number; what people set over it counts

  An id without a message is dropped and counted. RPOP comes before any other write: Redis accepts it also over
  maxmemory, and with it the writes that follow.

  returns  now (Unix ns as text), lease expiry (Unix s as text), ids dropped, how long each task was pending (ms, with a
           comma behind each; '' if not asked for, in a repeat, or where Go noted no time), then per task: id, message
]]
-- include _clock
-- include _unique
-- include _renew
-- include _wake
-- include _cancelled
local now_s, now_ns, now_ms = clock(ARGV[1])
local expiry = whole(now_s + tonumber(ARGV[6]))
local reply = { now_ns, expiry, 0, '' }

local last = redis.pcall('GET', KEYS[6]) -- a key of another type is no record, and is written over
if type(last) == 'string' then
  if string.match(last, '^%d+') == ARGV[3] then
    local rest = string.match(last, '^%d+:(.*)$') or ''
    while rest ~= '' do
      local length, tail = string.match(rest, '^(%d+):(.*)$')
      local id = string.sub(tail, 1, tonumber(length))
      rest = string.sub(tail, tonumber(length) + 1)
      local score = redis.call('ZSCORE', KEYS[3], id)
      local fields = redis.pcall('HMGET', ARGV[7] .. id, 'msg', 'taskq_owner')
      if score and fields[1] and fields[2] == ARGV[2] .. ':' .. score then
        reply[2] = score
        reply[#reply + 1] = id
        reply[#reply + 1] = fields[1]
      end
    end
    return reply
  end
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  return reply
end
redis.call('LLEN', KEYS[2]) -- a key of another type is refused here, before the first write
redis.call('ZCARD', KEYS[3])
local tokens = redis.call('LLEN', KEYS[5])

local limit = tonumber(ARGV[4])
local most
if ARGV[11] ~= '' then
  local set = redis.pcall('HGET', KEYS[7], 'o:c:')
  most = type(set) == 'string' and tonumber(set) or tonumber(ARGV[11])
  limit = math.min(limit, most - redis.call('LLEN', KEYS[2]))
  if limit < 1 then
    return reply -- and no token: whoever ends one of them looks again
  end
end
local ids = redis.call('RPOP', KEYS[1], limit)
if not ids then
  return reply
end
local owner, started = ARGV[2] .. ':' .. expiry, whole(now_ms)
local task_prefix, max_bytes = ARGV[7], tonumber(ARGV[5])
local taken, leases, count, bytes = {}, {}, 0, 0
local record, length, length_text = { ARGV[3] .. ':' }, nil, nil
local waits = ARGV[9] == '1' and {}
local limits

-- is_permitted: whether a task may run now; one that is gone gives back what it holds. With all it needs inside, which is
-- made only where there are limits.
local function is_permitted(id, key, limited, is_gone)
-- include _place
-- include _limits
  limits = limits or limiter(string.sub(task_prefix, 1, -3), now_s, now_ns, now_ms)
  return is_gone and limits.let_go(id, key) or limits.hand_out(id, key, limited, redis.call('HGET', key, 'taskq_permit'))
end

for i, id in ipairs(ids) do
  if bytes >= max_bytes then
    for j = #ids, i, -1 do
      redis.call('RPUSH', KEYS[1], ids[j])
    end
    break
  end
  local key = task_prefix .. id
  local fields =
    redis.pcall('HMGET', key, 'msg', 'taskq_step', 'taskq_wait', 'taskq_limit', 'unique_key', 'pending_since')
  local message, limited, lock = fields[1], fields[4], fields[5]
  if message and fields[2] and is_cancelled(KEYS[5], fields[2]) then
    if limited then
      is_permitted(id, key, limited, true)
    end
    redis.call('DEL', key)
    release(lock, id)
  elseif message and limited and not is_permitted(id, key, limited) then -- it stands in line for its limit now
  elseif message then
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
    bytes, count = bytes + #message, count + 1
    if #id ~= length then -- most ids are of one length, and a number made a text costs
      length, length_text = #id, #id .. ':'
    end
    taken[count] = id
    leases[2 * count - 1], leases[2 * count] = expiry, id
    record[2 * count], record[2 * count + 1] = length_text, id
    reply[2 * count + 3], reply[2 * count + 4] = id, message
    if waits then
      local since_ns = tonumber(fields[6] or '')
      waits[count] = since_ns and whole(math.max(0, (tonumber(now_ns) - since_ns) / 1000000)) or ''
    end
    if fields[3] == '2' then
      redis.call('PUBLISH', ARGV[8], id)
    end
  else
    if message == false then -- nil: a key of another type
      redis.call('DEL', key) -- a stub without a message would block its id for ever
      release(lock, id)
    end
    reply[3] = reply[3] + 1
  end
end
for i = 1, count, 200 do
  local last_index = math.min(i + 199, count)
  redis.call('LPUSH', KEYS[2], unpack(taken, i, last_index))
  redis.call('ZADD', KEYS[3], unpack(leases, 2 * i - 1, 2 * last_index))
end
if count > 0 then
  redis.call('SET', KEYS[6], table.concat(record), 'EX', ARGV[6])
end
if limits then
  limits.finish()
end
if waits and count > 0 then
  reply[4] = table.concat(waits, ',') .. ','
end
if tokens == 0 and redis.call('LLEN', KEYS[1]) > 0 and (not most or redis.call('LLEN', KEYS[2]) < most) then
  wake(KEYS[5])
end
return reply
