--[[
  store_step: store the result of a step of a running task, the number of its failures, or the position of the loops,
  after the values that the task emitted before. Or record that the task asks a question, that it stopped waiting for a
  signal or an answer, or which of several signals it has received.

  KEYS[1]  hash    the task
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  hash    record of its steps, see `_steps`
  KEYS[4]  string  key that never exists
  KEYS[5]  stream  values that the task emitted
  KEYS[6]  zset    open questions, see `_questions`
  ARGV[1]  string  "<token of the worker>.<run>"
  ARGV[2]  string  task id
  ARGV[3]  string  field of the record
  ARGV[4]  string  value
  ARGV[5]  string  name of the signal for which the task stopped waiting, '' otherwise
  ARGV[6..]        values that the run emitted and that are not stored yet, see `_emit`; none if all are stored. With a
                   position at least the number of the request, because the last request of a run has the last position

  returns  the stored value: an earlier one if the field was already stored; '' for a position, and if the task stopped
           waiting for several signals, but one has arrived
           0  this worker no longer owns the run   1  the record is lost
]]
-- include _clock
-- include _steps
-- include _emit
-- include _questions
local score = redis.call('ZSCORE', KEYS[2], ARGV[2])
local fields = redis.pcall('HMGET', KEYS[1], 'taskq_owner', 'taskq_steps')
if not score or fields[1] ~= ARGV[1] .. ':' .. score then
  return 0
elseif not fields[2] or redis.call('HGET', KEYS[3], 'of') ~= fields[2] then
  return 1
end
local _, _, now_ms = clock('')
if ARGV[10] then
  redis.call('XLEN', KEYS[5]) -- raises an error, before the first write, if the key has another type
end
local kind, name, value = string.sub(ARGV[3], 1, 2), string.sub(ARGV[3], 3), ARGV[4]
if kind == 'q:' or kind == 'v:' then
  redis.call('ZCARD', KEYS[6])
end
redis.call('DEL', KEYS[4]) -- comes first: after a DEL, even a full Redis allows the writes below
if kind == 'p:' then
  append(KEYS[3], KEYS[5], ARGV[1], ARGV[2], 6, now_ms, ARGV[3], value)
  return ''
elseif ARGV[6] then
  append(KEYS[3], KEYS[5], ARGV[1], ARGV[2], 6, now_ms)
end
if kind == 'a:' then
  redis.call('HSET', KEYS[3], ARGV[3], value)
  return value
elseif kind == 'q:' and redis.call('HEXISTS', KEYS[3], ARGV[3]) == 0 then
  value = ask(KEYS[1], KEYS[3], KEYS[6], ARGV[2], name, value)
elseif kind == 'o:' and string.match(value, '^%d+ $') and arrived(KEYS[3], ARGV[3]) then
  return redis.call('HGET', KEYS[3], ARGV[3]) or ''
end
if redis.call('HSETNX', KEYS[3], ARGV[3], value) == 0 then
  return redis.call('HGET', KEYS[3], ARGV[3])
elseif ARGV[5] ~= '' then
  redis.call('HINCRBY', KEYS[3], 'n:' .. ARGV[5], 1)
elseif kind == 'v:' then
  redis.call('ZREM', KEYS[6], question(ARGV[2], name))
end
return value
