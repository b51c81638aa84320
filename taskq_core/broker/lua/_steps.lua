-- The record of the steps of a task: a hash `<own>steps:<id>`. Its fields:
--   of            mark of the task, equal to the task's field taskq_steps. A later task with the same id has another
--                 mark, so it never finds the steps of the earlier task
--   g:<fence>     '1' for each run whose links contain its fence "<token>.<run>" as the generation of the task
--   s:<name>      result of a step: "<end, Unix ms> <duration, ms> <JSON>". '!' precedes the JSON of a failure that the
--                 code of the task has caught
--   a:<name>      "<number of failures of a step> <last failure, Unix ms>"
--   k:<name>      results of sub-tasks, in the form of s:<name>. If sub-tasks failed, '!' precedes the JSON, or '?' if the
--                 code gets the results of the others
--   c:<name>      sub-tasks: "<start, Unix ms> <id of their workflow>"
--   e:<name>      end of the sub-tasks (Unix ms)
--   r:<name>#<k>  k-th signal: "<arrival, Unix ms> <JSON>", without JSON if the task stopped waiting for it
--   o:<wait>      which of several signals the task has received: "<Unix ms> <name>#<k>", without a signal after the
--                 timeout. <wait> is "<name>#<k> | <name>#<k> | #<number of waits for the first name>"
--   q:<name>#<k>  k-th question with a name: "<number among all questions of the task> <asked, Unix ms> <number of
--                 signals with this name that the code had received before> <JSON>". The JSON has the name of the task
--                 type, the data and the JSON schema of the answer
--   v:<name>#<k>  answer: "<arrival, Unix ms> [<who answered>, <value>, <traceparent>]", without JSON if the task stopped
--                 waiting for it
--   questions     number of questions that the task has asked
--   t:<name>#<k>  traceparent of the request that sent this signal
--   cancel        "<Unix ms> <archive or discard>": when the cancellation of the task was requested, and what becomes of
--                 the task after its code has ended. What happens later ends no wait
--   by            r:<name>#<k>, v:<name>#<k> or c:<name>: the signal, the answer or the sub-tasks that ended the last
--                 wait. The runs of this attempt link to the request that sent the signal or the answer
--   n:<name>      number of signals with this name, including those for which the task stopped waiting
--   i:<id>        '1' for each signal that arrived, so that a repeated request changes nothing
--   signals       number of signals and answers that arrived
--   signal_bytes  total size of these signals and answers
--   emitted       "<run> <number>" of the last request that stored emitted values or the position
--   values        id of the last emitted value, see `_emit`
--   p:iterate     position of the loops, in the form of s:<name>; deleted when the task has succeeded
--   u:<wait>      the end and the start of a wait: "<Unix ms> <Unix ms>", with the end '-' while it has no time limit
--   waiting       "<end> <wait>", the end as in u:<wait>: the wait for which the task is scheduled: z:<name> sleep,
--                 r:<name>#<k> signal, o:<wait> the first of several signals, v:<name>#<k> answer, c:<name> sub-tasks,
--                 y:<name>#<k> the attempt of a step after its k-th failure. The next run ends this wait, for whatever
--                 reason it starts
--   try           "<attempt> <run>" of the last run, "<attempt> w" while the task waits. The run after a wait belongs
--                 to the same attempt. Every other run is another attempt, even after an interruption
--   x             number of values that this attempt emitted outside its steps before it waited
-- The values that the task emits are in a stream `<own>stream:<id>`. Needs the file `_clock`.

local STEPS_KEPT_S, WITHOUT_LIMIT_MS = 7776000, 86400000

-- record_ttl: return the seconds after which the steps record of a task expires, if the task starts at `start_s`.
local function record_ttl(start_s, now_s)
  return whole(STEPS_KEPT_S + math.max(0, math.min(10000000000, math.ceil(start_s - now_s))))
end

-- open_record: create the steps record of a task if the task has none, and renew the expiry of the record. Return false
-- if the record is lost.
local function open_record(task_key, record, stream, now_ns, ttl_s)
  local mark = redis.call('HGET', task_key, 'taskq_steps')
  if not mark then
    redis.call('DEL', record, stream) -- an earlier task with the same id has left these keys
    redis.call('HSET', task_key, 'taskq_steps', now_ns)
    redis.call('HSET', record, 'of', now_ns)
  elseif redis.call('HGET', record, 'of') ~= mark then
    return false
  end
  redis.call('EXPIRE', record, ttl_s or STEPS_KEPT_S)
  return true
end

-- is_over: return whether a call of sub-tasks is over, so that its task must not wait for the call. A call is over when
-- all sub-tasks have ended, or when a failover lost their workflow or the record of the call. After such a loss,
-- nothing would wake the task. So the task does not wait, and its next run begins the call again.
local function is_over(own, record, name, now_ms)
  local begun, ended = unpack(redis.call('HMGET', record, 'c:' .. name, 'e:' .. name))
  local state = begun and redis.pcall('HGET', own .. 'wf:' .. string.match(begun, ' (.*)$'), 'state')
  if not ended and type(state) == 'string' and state ~= 'running' and state ~= 'building' then
    redis.call('HSET', record, 'e:' .. name, whole(now_ms))
  end
  return ended or state ~= 'running' and state ~= 'building'
end

-- arrived: return the first of the signals in o:<wait> that has arrived, as r:<name>#<k>, nil without one.
local function arrived(record, wait)
  for signal in string.gmatch(string.sub(wait, 3), '(.-) | ') do
    if redis.call('HGET', record, 'r:' .. signal) then
      return 'r:' .. signal
    end
  end
end

-- begin_wait: record for which event a task waits, and until when (`until_ms`, 0 without a limit). Return the event if
-- it has already happened. Record nothing if the steps record is lost or is a key of another type: then the next run of
-- the task fails with an error.
local function begin_wait(own, record, mark, wait, until_ms, emitted, now_ms)
  local call = string.match(wait, '^c:(.*)$')
  local known = redis.pcall('HMGET', record, 'of', 'try', 'u:' .. wait, wait)
  if not mark or known[1] ~= mark then
    return false
  end
  local attempt = string.match(known[2] or '', '^%d+') or '1'
  local since = string.match(known[3] or '', ' (%d+)$') or whole(now_ms)
  local ends = (until_ms > 0 and whole(until_ms) or '-') .. ' '
  redis.call('HSET', record, 'waiting', ends .. wait, 'x', emitted, 'try', attempt .. ' w', 'u:' .. wait, ends .. since)
  redis.call('HDEL', record, 'by')
  redis.call('EXPIRE', record, record_ttl(until_ms / 1000, now_ms / 1000))
  if redis.call('HGET', record, 'cancel') and string.sub(wait, 1, 2) ~= 'y:' then
    return wait
  elseif call then
    return is_over(own, record, call, now_ms) and wait
  elseif string.sub(wait, 1, 2) == 'o:' then
    return arrived(record, wait)
  end
  return known[4] and wait
end
