--[[
  signal: send a value to a task, or answer its question. Make the task pending if it waits for this.

  KEYS[1]  hash    the task
  KEYS[2]  hash    record of its steps, see `_steps`
  KEYS[3]  stream  values that the task emitted
  KEYS[4]  list    pending tasks
  KEYS[5]  zset    scheduled: id by start (Unix s)
  KEYS[6]  list    wake tokens
  KEYS[7]  zset    open questions, see `_questions`
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  task id
  ARGV[3]  string  name of the signal, or "<name>#<k>" of the question
  ARGV[4]  string  value, JSON; for an answer as in v:<name>#<k>, see `_steps`
  ARGV[5]  string  id of the signal: a repeat with the same id changes nothing
  ARGV[6]  int     maximum number of signals of a task
  ARGV[7]  int     maximum bytes of all signals of a task
  ARGV[8]  string  prefix of the queue's keys
  ARGV[9]  string  prefix of the queue's taskq-only keys
  ARGV[10] string  channel for the ids of changed tasks
  ARGV[11] string  generation of the task, '' for any, see `_generation`
  ARGV[12] string  traceparent of the sender, '' none
  ARGV[13] int     deadline of this request by Redis's clock (Unix ms), '' without one
  ARGV[14] int     number of the wait that the value answers, from 1; 0 for the next wait without a value
  ARGV[15] int     number of the question that the value answers, 0 for a signal

  returns  ok        the value is stored, now or earlier
           missing   the task does not exist, or is a later one with the same id
           full      the task has received the maximum of signals or bytes
           lost      the record of its steps is lost
           answered  the wait with the number ARGV[14] has its value, or is over; or the question was answered, its
                     task was cancelled, or the task never asked it
           asks      the task asks a question with the name of the signal, which a signal does not answer
           otherwise the state of a task that has ended
]]
-- include _check
-- include _clock
-- include _late
-- include _generation
-- include _place
-- include _wake
-- include _steps
-- include _resume
-- include _questions
local now_s, now_ns, now_ms = clock(ARGV[1])
local late = lateness(ARGV[13], now_ms)
if late then -- refuse a late request, because another task may have this id now
  return late
end
check('LLEN', KEYS[4], KEYS[6])
check('ZCARD', KEYS[5], KEYS[7])
local task = redis.call('HMGET', KEYS[1], 'state', 'taskq_steps', 'taskq_wait', 'taskq_owner')
local state, mark = task[1], task[2]
local known = mark and redis.call('HMGET', KEYS[2], 'of', 'i:' .. ARGV[5], 'n:' .. ARGV[3], 'signals', 'signal_bytes', 'g:' .. ARGV[11], 'q:' .. ARGV[3], 'v:' .. ARGV[3], 'waiting', 'cancel') or {}
-- a link from the run that owns the task, or from an earlier one
local is_linked = string.sub(task[4] or '', 1, #ARGV[11] + 1) == ARGV[11] .. ':' or (known[6] and known[1] == mark)
if not state or (not is_linked and is_later(KEYS[1], ARGV[11])) then
  return 'missing'
elseif known[2] and known[1] == mark then
  return 'ok'
elseif state == 'completed' or state == 'archived' then
  return state
elseif mark and known[1] ~= mark then
  return 'lost'
elseif ARGV[14] ~= '0' and tonumber(known[3] or 0) >= tonumber(ARGV[14]) then
  return 'answered'
elseif ARGV[15] ~= '0' and (known[8] or known[10] or string.match(known[7] or '', '^%d+') ~= ARGV[15]) then
  return 'answered'
elseif ARGV[15] == '0' and string.match(known[9] or '', ' v:([^#]*)#%d+$') == ARGV[3] then
  return 'asks'
elseif tonumber(known[4] or 0) >= tonumber(ARGV[6]) or tonumber(known[5] or 0) + #ARGV[4] > tonumber(ARGV[7]) then
  return 'full'
end
local start_s = state == 'scheduled' and tonumber(redis.call('ZSCORE', KEYS[5], ARGV[2]) or '') or now_s
open_record(KEYS[1], KEYS[2], KEYS[3], now_ns, record_ttl(start_s, now_s))
local wait = 'v:' .. ARGV[3]
if ARGV[15] == '0' then
  local number = redis.call('HINCRBY', KEYS[2], 'n:' .. ARGV[3], 1)
  wait = 'r:' .. ARGV[3] .. '#' .. number
  if ARGV[12] ~= '' then
    redis.call('HSET', KEYS[2], 't:' .. ARGV[3] .. '#' .. number, ARGV[12])
  end
else
  redis.call('ZREM', KEYS[7], question(ARGV[2], ARGV[3]))
end
redis.call('HSET', KEYS[2], wait, event_ms(KEYS[2], now_ms) .. ' ' .. ARGV[4], 'i:' .. ARGV[5], '1')
redis.call('HINCRBY', KEYS[2], 'signals', 1)
redis.call('HINCRBY', KEYS[2], 'signal_bytes', #ARGV[4])
resume(ARGV[8], ARGV[9], now_ns, now_ms, ARGV[2], wait)
if task[3] == '2' then
  redis.call('PUBLISH', ARGV[10], ARGV[2])
end
return 'ok'
