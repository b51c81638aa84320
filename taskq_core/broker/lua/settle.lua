--[[
  settle: record how runs of a worker ended, and move or delete the tasks of these runs accordingly.

  KEYS[1]  list    active tasks
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  list    pending tasks
  KEYS[4]  zset    completed tasks: id by end of retention (Unix s)
  KEYS[5]  zset    retry: id by next attempt (Unix s)
  KEYS[6]  zset    archived: id by archiving time (Unix s)
  KEYS[7]  list    wake tokens
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  string  channel for the ids of ended tasks
  ARGV[5]  int     seconds until a daily counter expires
  ARGV[6]  int     seconds for which an archived task is kept
  ARGV[7]  int     maximum number of archived tasks
  ARGV[8]  int     arguments per task: 1 (all are done, and among the youngest active tasks) or 7
  ARGV[9]  string  numbers of the runs: "<run>x<number of tasks>," for each sequence of tasks with the same run number
  ARGV[10..]       per task: with 1 its id; with 7 outcome, id, message, time, unique lock key ('' none), result (''
                   none), record of the attempt (a line of JSON, '' none)
                   outcome  d done: delete                     c complete: keep, time = seconds of retention
                            o complete with an oversized result: the result argument is "<size> <limit>"
                            r retry after a failure, time = ms until then
                            n retry that counts no failure     a archive   b archive, and add it to the dead letters
                            q requeue as the next task to run
                            w wait, see `_steps`: time = Unix ms, 0 without a limit; the record argument is "<x> <wait>"
                   followed by '+' if the task is among the youngest active tasks (the search starts at that end)

  A run may settle its task only while the fence, the field taskq_owner, is "<token>.<run>:<score in the lease set>". So
  a delayed request of an earlier run of the same task changes nothing.

  returns  one character per task:  1  settled   3  settled, and outcomes of steps must be sent to another queue
           0  this worker no longer owns the run   2  not checked, send it again (at most 1000 tasks, and the search in a
           long active list is limited: tasks x length <= 2 000 000)
           a, d, r  not settled: the task would wait, but a cancellation was requested during its run, which the worker has
           not received yet: archive, discard or retry. A task that waits would lose the cancellation
]]
-- include _check
-- include _clock
-- include _date
-- include _count
-- include _ends
local now_s, now_ns, now_ms = clock(ARGV[1])
local stride = tonumber(ARGV[8])
if stride == 7 then -- the next calls raise an error if a key has another type
  check('LLEN', KEYS[3], KEYS[7])
  check('ZCARD', KEYS[4], KEYS[5], KEYS[6])
end

local task_prefix, own = ARGV[3] .. 't:', string.sub(KEYS[7], 1, -5)
local total = (#ARGV - 9) / stride
local looked_at = math.min(total, 1000)
if looked_at == 0 then
  return ''
end
local ids, before, would_wait = ARGV, 9, {}
if stride == 7 then
  ids, before = {}, 0
  for position = 1, looked_at do
    ids[position] = ARGV[4 + position * 7]
    if string.sub(ARGV[3 + position * 7], 1, 1) == 'w' then
      would_wait[#would_wait + 1] = position
    end
  end
end
if #would_wait > 0 then
  check('ZCARD', ARGV[3] .. 'scheduled')
end

local task_keys, marks, mine, is_plain = owned(KEYS[2], ARGV[2], ARGV[9], task_prefix, ids, before, looked_at)
local cancelled = {}
for _, position in ipairs(would_wait) do
  local fields = task_keys[position] and redis.call('HMGET', task_keys[position], 'taskq_cancel', 'taskq_started') or {}
  local started, asked = string.match(fields[1] or '', '^(%d*):(%a)')
  if asked and asked ~= 's' and started == (fields[2] or '') then
    task_keys[position], cancelled[position], mine = false, asked, mine - 1
  end
end
local ends, oldest = nil, {}
if mine == looked_at and mine > 2 then
  ends, oldest = common_end(KEYS[1], ids, before, mine)
end
if ends then
  leave_together(KEYS[1], ends, mine)
  if stride == 1 and is_plain then -- no task has a waiting client, is a step or has a limit
    delete_done(KEYS[2], ARGV[3], task_keys, ids, before, mine, now_s, tonumber(ARGV[5]))
    return string.rep('1', mine) .. string.rep('2', total - mine)
  end
end

if not ends then
  looked_at = math.min(looked_at, scannable(KEYS[1]))
  leave_one_by_one(KEYS[1], ids, before, looked_at, task_keys, oldest, function(position)
    return stride == 1 or #ARGV[3 + position * 7] > 1
  end)
end

local unique_prefix = ARGV[3] .. 'unique:'
-- include _unique
-- include _forget_steps
-- include _trim
-- include _wake
-- include _leave_active
-- include _record
local keys = { active = KEYS[1], lease = KEYS[2], done = ARGV[4] }
local flow -- this object is created for the first task that is a workflow step
local limits

local function workflows_here()
-- include _lock
-- include _marks
-- include _place
  local limiter -- steps are stored without limits, so `_store` does not need the file `_limits`
-- include _store
-- include _steps
-- include _resume
-- include _copied
-- include _flow
  return workflows(own, { s = now_s, ns = now_ns, ms = now_ms })
end

-- end_limits: release the permits of limits that a task holds. Return true if the task is requeued and has to wait for
-- a limit. The included functions are created only for tasks with limits.
local function end_limits(id, key, outcome)
-- include _place
-- include _limits
  limits = limits or limiter(ARGV[3], now_s, now_ns, now_ms)
  if outcome == 'q' then
    return not limits.back(id, key)
  end
  local of_sequence = { r = 'retry', n = 'retry', w = 'retry', a = 'archive' }
  limits.release_permits(id, key, of_sequence[outcome])
  return false
end

-- wait: schedule a task for the end of its wait. If the event for which the task waits has already happened, make the
-- task pending. A task that waits without a time limit is started after a day and then waits again.
local function wait(id, key, mark, message, until_ms, what)
-- include _place
-- include _steps
-- include _resume
  local emitted, awaited = string.match(what, '^(%d+) (.*)$')
  local start_ms = until_ms > 0 and until_ms or now_ms + WITHOUT_LIMIT_MS
  keep(ARGV[3] .. 'scheduled', whole(math.ceil(start_ms / 1000)), id, key, message, 'scheduled')
  if awaited and redis.call('HEXISTS', key, 'taskq_limit') == 1 then
    redis.call('HSET', key, 'taskq_paid', '1')
  end
  local event = awaited and begin_wait(own, own .. 'steps:' .. id, mark, awaited, until_ms, emitted, now_ms)
  if event then
    resume(ARGV[3], own, now_ns, now_ms, id, event)
  end
end

-- delete_ended: delete all tasks that are done. Call this function before code that reads other tasks, because that
-- code must not find the tasks that are done.
local ended = {}
local function delete_ended()
  if #ended > 0 then
    redis.call('DEL', unpack(ended))
    ended = {}
  end
end

local codes = {}
for position = 1, total do
  codes[position] = position > looked_at and '2' or cancelled[position] or '0'
end
local processed, failed, archived, requeued = 0, 0, 0, 0
local gone, nothing = {}, {}
for position = looked_at, 1, -1 do
  local key = task_keys[position]
  if key then
    local i, id, fields = 3 + position * 7, ids[before + position], marks[position] or nothing
    local is_first = fields == nothing -- the hash has only the four usual fields, so no attempt was recorded yet
    codes[position] = '1'
    gone[#gone + 1] = id
    if fields[3] or fields[4] then
      delete_ended()
    end
    local outcome = stride == 7 and string.sub(ARGV[i], 1, 1) or 'd'
    local lock = stride == 7 and ARGV[i + 4] or ''
    local rule = lock ~= '' and redis.call('HGET', key, 'taskq_unique')
    local is_told, is_oversized = outcome == 'b', outcome == 'o'
    outcome = is_told and 'a' or is_oversized and 'c' or outcome
    local message, time, line = ARGV[i + 2], ARGV[i + 3], ARGV[i + 6]
    if fields[3] and (outcome == 'c' or outcome == 'd' or outcome == 'a') then
      flow = flow or workflows_here()
      outcome = flow.settled(fields[3], outcome, key, message, is_oversized and '' or ARGV[i + 5], is_oversized and ARGV[i + 5])
      if flow.has_ends_to_send then
        codes[position], flow.has_ends_to_send = '3', false
      end
    end
    local waits = fields[4] and end_limits(id, key, outcome)
    if outcome == 'q' then
      follow(rule, lock, id, 'pending') -- the rule's state is pending even if the task now waits for a limit
    end
    if fields[6] and (outcome == 'd' or outcome == 'c' or outcome == 'a') then
      local kept_s = outcome == 'd' and 60 or outcome == 'a' and ARGV[6] or whole(math.max(60, tonumber(time)))
      keep_steps(ARGV[3], id, kept_s)
      if outcome == 'd' then -- only the emitted values are still needed
        redis.call('DEL', own .. 'steps:' .. id)
      elseif outcome == 'c' then
        redis.pcall('HDEL', own .. 'steps:' .. id, 'p:iterate') -- changes nothing if the key has another type
      end
    end
    if outcome == 'd' then
      ended[#ended + 1] = key
      processed = processed + 1
      release(lock, id)
      announce(keys, fields[2], id)
    elseif outcome == 'c' then
      local until_s = whole(now_s + tonumber(ARGV[i + 3]))
      if is_oversized then -- the empty result replaces a result that the task wrote during the run
        keep(KEYS[4], until_s, id, key, ARGV[i + 2], 'completed', 'result', '', 'taskq_oversized', ARGV[i + 5], record(key, line, is_first))
      elseif ARGV[i + 5] == '' then
        keep(KEYS[4], until_s, id, key, ARGV[i + 2], 'completed', record(key, line, is_first))
      else
        keep(KEYS[4], until_s, id, key, ARGV[i + 2], 'completed', 'result', ARGV[i + 5], record(key, line, is_first))
      end
      processed = processed + 1
      if rule then
        follow(rule, lock, id, 'completed')
      else
        release(lock, id)
      end
      announce(keys, fields[2], id)
    elseif outcome == 'r' or outcome == 'n' then
      keep(KEYS[5], whole(due(now_ms, tonumber(time))), id, key, message, 'retry', record(key, line, is_first))
      follow(rule, lock, id, 'retry')
      announce_change(keys, fields[2], id)
      if outcome == 'r' then
        processed = processed + 1
        failed = failed + 1
      end
    elseif outcome == 'w' then
      wait(id, key, fields[6], message, tonumber(time), line)
      follow(rule, lock, id, 'scheduled')
      announce_change(keys, fields[2], id)
    elseif outcome == 'a' then
      if is_told then
        redis.call('ZADD', own .. 'letters', whole(now_s), id)
      end
      keep(KEYS[6], whole(now_s), id, key, message, 'archived', record(key, line, is_first))
      follow(rule, lock, id, 'archived')
      processed = processed + 1
      failed = failed + 1
      archived = archived + 1
      announce(keys, fields[2], id)
    elseif outcome == 'q' and not waits then
      redis.call('RPUSH', KEYS[3], id)
      redis.call('HSET', key, 'state', 'pending')
      redis.call('HDEL', key, 'taskq_owner', 'taskq_started', 'taskq_begun', 'taskq_cancel')
      requeued = requeued + 1
      announce_change(keys, fields[2], id)
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
return flow and flow.with_steps(table.concat(codes)) or table.concat(codes)
