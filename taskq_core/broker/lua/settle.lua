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
  ARGV[8]  int     arguments per task: 1 (all are done, and young) or 7
  ARGV[9..]        per task: with 1 its id; with 7 outcome, id, message, time, unique lock key ('' none), result or, where
                   the task is not over, its cursor ('' none), record of the attempt ('' none), a line of JSON
                   outcome  d done: delete                     c complete: keep, time = seconds of retention
                            r retry after a failure, time = ms until then
                            n retry that counts no failure     a archive   b archive, and let it be told of
                            q requeue at the head
                   followed by '+' where the task is among the youngest active ones (it is looked for from that end)

  The fence: a task is this worker's only while its field taskq_owner is "<token>:<its score in the lease set>".

  returns  one character per task:  1  settled   3  settled, and there is something to carry to another queue
           0  not this worker's   2  not looked at, send again (the scan of a long active list is bounded: tasks x length
           <= 2 000 000, and so are the tasks: 1000)
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
local looked_at = math.min(total, budget)
local codes, ids = {}, {}
for position = 1, total do
  codes[position] = position > budget and '2' or '0'
  ids[position] = ARGV[stride == 7 and 3 + position * 7 or 8 + position]
end
local scores = total > 0 and redis.call('ZMSCORE', KEYS[2], unpack(ids, 1, looked_at)) or {}

-- Which of them are this worker's, from the last to the first: the youngest stand at the left end of the active list,
-- where they are looked for, and what is requeued comes to stand in its old order.
local mine, task_keys, gone, owned = {}, {}, {}, {}
local fence_score, fence
for position = looked_at, 1, -1 do
  local id, score = ids[position], scores[position]
  if score and not owned[id] then
    if score ~= fence_score then
      fence_score, fence = score, ARGV[2] .. ':' .. score
    end
    local key = task_prefix .. id
    local fields = redis.pcall('HMGET', key, 'taskq_owner', 'taskq_wait', 'taskq_step', 'taskq_permit')
    if fields[1] == fence then
      owned[id], mine[position], task_keys[position] = true, fields, key
      gone[#gone + 1] = id
    end
  end
end

-- found_at: the ids in a part of the active list, as a set, and whether they are just those that leave.
local function found_at(from, to)
  local there, found, others = redis.call('LRANGE', KEYS[1], from, to), {}, 0
  for _, id in ipairs(there) do
    others = others + ((found[id] or not owned[id]) and 1 or 0)
    found[id] = true
  end
  return found, others == 0 and #there == #gone
end

-- They leave the active list first: that is accepted also over maxmemory, and with it the writes that follow. Quick tasks
-- stand together, at the end of the oldest if the worker runs no others and at that of the youngest if others take long:
-- then they leave in one command. Else each is looked for from the end that it is nearer to.
local function leave_active()
  local oldest = {}
  if #gone > 2 then
    local is_all
    oldest, is_all = found_at(-#gone, -1)
    if is_all then
      redis.call('LTRIM', KEYS[1], 0, -#gone - 1)
      return
    end
    local _, is_all_young = found_at(0, #gone - 1)
    if is_all_young then
      redis.call('LTRIM', KEYS[1], #gone, -1)
      return
    end
  end
  for position = looked_at, 1, -1 do
    if mine[position] then
      local is_young = not oldest[ids[position]] and (stride == 1 or #ARGV[2 + position * 7] > 1)
      redis.call('LREM', KEYS[1], is_young and 1 or -1, ids[position])
    end
  end
end
leave_active()

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

-- delete_ended: delete the tasks that are done, all at once. What looks at other tasks must not find them any more.
local ended = {}
local function delete_ended()
  if #ended > 0 then
    redis.call('DEL', unpack(ended))
    ended = {}
  end
end

for position = looked_at, 1, -1 do
  local fields = mine[position]
  if fields then
    local i, id = 2 + position * 7, ids[position]
    local key = task_keys[position]
    codes[position] = '1'
    if fields[3] or fields[4] then
      delete_ended()
    end
    local outcome = stride == 7 and string.sub(ARGV[i], 1, 1) or 'd'
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
      ended[#ended + 1] = key
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
delete_ended()
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
