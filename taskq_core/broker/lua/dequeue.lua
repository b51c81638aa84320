--[[
  dequeue: hand pending tasks to a worker, oldest first, each with a lease.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  list    active tasks
  KEYS[3]  zset    leases: id by expiry (Unix s)
  KEYS[4]  string  present while the queue is paused
  KEYS[5]  list    wake tokens
  KEYS[6]  string  tasks of this worker's last call: "<call>:" and each id as "<length>:<id>"; kept for 120 s, or as long
                   as a lease
  KEYS[7]  hash    limits of the queue, with the values that users set
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  int     number of this call, and of the runs that it starts. A repeat with the same number hands out nothing
                   new and returns the same tasks. A late call with a lower number than the last hands out nothing
  ARGV[4]  int     maximum number of tasks. 0 cancels the call with this number: it returns the tasks that the call has
                   handed out, and if that call arrives later, it hands out nothing
  ARGV[5]  int     total bytes of messages after which no further task is taken (the first is always taken)
  ARGV[6]  int     length of the lease (s)
  ARGV[7]  string  prefix of task keys
  ARGV[8]  string  channel for the ids of changed tasks
  ARGV[9]  int     1 to return how long each task was pending
  ARGV[10] int     minimum time for which a started task holds its unique lock (s)
  ARGV[11] int     maximum number of active tasks of the queue, '' for any number; a value in KEYS[7] overrides it
  ARGV[12] int     deadline of this request by Redis's clock (Unix ms), '' without one
  ARGV[13] int     largest message in bytes. A task with a larger message is moved to quarantine; its message is not read

  An id without a message is dropped and counted, and replaced by another id, until about 1000 ids were read. The first
  write is RPOP: after an RPOP, even a full Redis allows the later writes of this script.

  returns  now (Unix ns as text), lease expiry (Unix s as text), number of dropped ids, time that each task was pending
           (ms, each followed by a comma; '' if not requested, in a repeat, or if Go stored no time), then per task: id,
           message. Tasks that name a lock of another queue hold no lock. If there are any, or tasks that were moved to
           quarantine, the third value is "<dropped ids> <tasks with a foreign lock> <tasks in quarantine>"
]]
-- include _clock
-- include _late
-- include _wake
local now_s, now_ns, now_ms = clock(ARGV[1])
local expiry = whole(now_s + tonumber(ARGV[6]))
local reply = { now_ns, expiry, 0, '' }

local late = lateness(ARGV[12], now_ms)
if late then
  return late
end
local last = redis.pcall('GET', KEYS[6]) -- a key of another type is not a record of a call, so it is overwritten
if type(last) == 'string' then
  local number = string.match(last, '^%d+')
  if number == ARGV[3] then
    local rest = string.match(last, '^%d+:(.*)$') or ''
    while rest ~= '' do
      local length, tail = string.match(rest, '^(%d+):(.*)$')
      local id = string.sub(tail, 1, tonumber(length))
      rest = string.sub(tail, tonumber(length) + 1)
      local score = redis.call('ZSCORE', KEYS[3], id)
      local fields = redis.pcall('HMGET', ARGV[7] .. id, 'msg', 'taskq_owner')
      if score and fields[1] and fields[2] == ARGV[2] .. '.' .. ARGV[3] .. ':' .. score then
        reply[2] = score
        reply[#reply + 1] = id
        reply[#reply + 1] = fields[1]
      end
    end
    return reply
  elseif number and tonumber(number) > tonumber(ARGV[3]) then
    return reply
  end
end
if ARGV[4] == '0' then
  redis.call('DEL', KEYS[6]) -- comes first: after a DEL, even a full Redis allows the writes below
  redis.call('SET', KEYS[6], ARGV[3] .. ':', 'EX', whole(math.max(120, tonumber(ARGV[6]))))
  return reply
end
if redis.call('LLEN', KEYS[1]) == 0 or redis.call('EXISTS', KEYS[4]) == 1 then
  return reply -- return early, because idle workers call this often
end
redis.call('LLEN', KEYS[2]) -- raises an error, before the first write, if the key has another type
redis.call('ZCARD', KEYS[3])
local tokens = redis.call('LLEN', KEYS[5])

-- include _hand_out
