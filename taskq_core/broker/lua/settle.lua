--[[
  settle: end the runs of a worker's active tasks.

  KEYS[1]  list    active tasks
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  list    pending tasks
  KEYS[4]  zset    completed tasks: id by end of retention (Unix s)
  KEYS[5]  zset    retry: id by next attempt (Unix s)
  KEYS[6]  zset    archived: id by time of archiving (Unix s)
  KEYS[7]  list    wake tokens
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  string  channel that tells of ended tasks
  ARGV[5]  int     seconds a daily counter is kept
  ARGV[6]  int     seconds an archived task is kept
  ARGV[7]  int     most archived tasks
  ARGV[8]  int     arguments per task: 2 (all are done) or 7
  ARGV[9..]        per task: outcome, id and, with 7, message, time, unique lock key ('' none), result or, where the task
                   is not over, its cursor ('' none), record of the attempt ('' none), a line of JSON
                   outcome  d done: delete                     c complete: keep, time = seconds of retention
                            r retry after a failure, time = ms until then
                            n retry that counts no failure     a archive   b archive, and let it be told of
                            q requeue at the head
                   followed by '+' where the task is among the youngest active ones (it is looked for from that end)

  The fence: a task is this worker's only while its field taskq_owner is "<token>:<its score in the lease set>".

  returns  one character per task:  1  settled   3  settled, and there is something to carry to another queue   0  not this worker's   2  not looked at, send again (the scan of a
           long active list is bounded: tasks x length <= 2 000 000, and so are the tasks: 1000)
]]
-- include _clock
-- include _date
-- include _count
-- include _trim
-- include _wake
-- include _leave_active
-- include _unique
-- include _record
local now_s, now_ns, now_ms = clock(ARGV[1])
local keys = { active = KEYS[1], lease = KEYS[2], done = ARGV[4] }
local stride = tonumber(ARGV[8])
local budget = math.min(1000, math.max(1, math.floor(2000000 / math.max(1, redis.call('LLEN', KEYS[1])))))
if stride == 7 then -- keys of another type are refused here, before the first write
  redis.call('LLEN', KEYS[3])
  redis.call('ZCARD', KEYS[4])
  redis.call('ZCARD', KEYS[5])
  redis.call('ZCARD', KEYS[6])
  redis.call('LLEN', KEYS[7])
end

local task_prefix = ARGV[3] .. 't:'
local total = (#ARGV - 8) / stride
local codes, ids, owned, gone = {}, {}, {}, {}
for position = 1, total do
  codes[position] = position > budget and '2' or '0'
  ids[position] = ARGV[9 + (position - 1) * stride + 1]
end
local scores = total > 0 and redis.call('ZMSCORE', KEYS[2], unpack(ids, 1, math.min(total, budget))) or {}

local flow -- made when the first step of a workflow is met, with all it needs
local processed, failed, archived, requeued = 0, 0, 0, 0
local limits

local function workflows_here()
-- include _lock
-- include _marks
-- include _place
-- include _store
-- include _flow
  return workflows(string.sub(KEYS[7], 1, -5), { s = now_s, ns = now_ns, ms = now_ms })
end

-- end_limits: give back what a task holds of its limits. True if it is given back itself and has to wait. With all it
-- needs inside, which is made only where there are limits.
local function end_limits(id, key, outcome)
-- include _place
-- include _limits
  limits = limits or limiter(ARGV[3], now_s, now_ns, now_ms)
  if outcome == 'q' then
    return not limits.back(id, key)
  end
  local of_sequence = { r = 'retry', n = 'retry', a = 'archive' }
  limits.let_go(id, key, of_sequence[outcome])
  return false
end

-- From the last to the first: the youngest stand at the left end of the active list, where they are looked for, and what
-- is requeued comes to stand in its old order.
for position = math.min(total, budget), 1, -1 do
  local i, id = 9 + (position - 1) * stride, ids[position]
  local key, score = task_prefix .. id, scores[position]
  local fields = score
    and not owned[id]
    and redis.pcall('HMGET', key, 'taskq_owner', 'taskq_wait', 'taskq_step', 'taskq_permit')
  if fields and fields[1] == ARGV[2] .. ':' .. score then
    codes[position] = '1'
    owned[id] = true
    gone[#gone + 1] = id
    redis.call('LREM', KEYS[1], #ARGV[i] > 1 and 1 or -1, id) -- first: accepted also over maxmemory
    local outcome = string.sub(ARGV[i], 1, 1)
    local lock = stride == 7 and ARGV[i + 4] or ''
    local rule = lock ~= '' and redis.call('HGET', key, 'taskq_unique')
    local is_told = outcome == 'b'
    outcome = is_told and 'a' or outcome
    if stride == 7 and ARGV[i + 5] ~= '' and outcome ~= 'c' then
      redis.call('HSET', key, 'taskq_cursor', ARGV[i + 5])
    end
    if fields[3] and (outcome == 'c' or outcome == 'd' or outcome == 'a') then
      flow = flow or workflows_here()
      outcome = flow.settled(fields[3], outcome, key, ARGV[i + 2], ARGV[i + 5])
      if flow.has_to_carry then
        codes[position], flow.has_to_carry = '3', false
      end
    end
    local waits = fields[4] and end_limits(id, key, outcome)
    if outcome == 'q' then
      follow(rule, lock, id, 'pending') -- also where it waits for a limit
    end
    if outcome == 'd' then
      redis.call('DEL', key)
      processed = processed + 1
      release(lock, id)
      announce(keys, fields[2], id)
    elseif outcome == 'c' then
      keep(KEYS[4], whole(now_s + tonumber(ARGV[i + 3])), id, key, ARGV[i + 2], 'completed')
      if ARGV[i + 5] ~= '' then
        redis.call('HSET', key, 'result', ARGV[i + 5])
      end
      record_attempt(key, ARGV[i + 6])
      processed = processed + 1
      if rule then
        follow(rule, lock, id, 'completed')
      else
        release(lock, id)
      end
      announce(keys, fields[2], id)
    elseif outcome == 'r' or outcome == 'n' then
      keep(KEYS[5], whole(due(now_ms, tonumber(ARGV[i + 3]))), id, key, ARGV[i + 2], 'retry')
      record_attempt(key, ARGV[i + 6])
      follow(rule, lock, id, 'retry')
      tell(keys, fields[2], id)
      if outcome == 'r' then
        processed = processed + 1
        failed = failed + 1
      end
    elseif outcome == 'a' then
      if is_told then
        redis.call('ZADD', string.sub(KEYS[7], 1, -5) .. 'letters', whole(now_s), id)
      end
      keep(KEYS[6], whole(now_s), id, key, ARGV[i + 2], 'archived')
      record_attempt(key, ARGV[i + 6])
      follow(rule, lock, id, 'archived')
      processed = processed + 1
      failed = failed + 1
      archived = archived + 1
      announce(keys, fields[2], id)
    elseif outcome == 'q' and not waits then
      redis.call('RPUSH', KEYS[3], id)
      redis.call('HSET', key, 'state', 'pending')
      redis.call('HDEL', key, 'taskq_owner', 'taskq_started', 'taskq_cancel')
      requeued = requeued + 1
      tell(keys, fields[2], id)
    end
  end
end
if #gone > 0 then
  redis.call('ZREM', KEYS[2], unpack(gone))
end
if limits then
  limits.finish()
end
if archived > 0 then
  trim(KEYS[6], task_prefix, now_s - tonumber(ARGV[6]), tonumber(ARGV[7]))
end
if requeued > 0 then
  wake(KEYS[7])
end
count(ARGV[3], 'processed', processed, now_s, tonumber(ARGV[5]))
count(ARGV[3], 'failed', failed, now_s, tonumber(ARGV[5]))
return table.concat(codes)
