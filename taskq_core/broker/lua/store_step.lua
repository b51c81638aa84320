--[[
  store_step: store the result of a step of a running task, the number of its failures, or the position of the loops,
  after the values that the task emitted before. Or record that the task stopped waiting for a signal.

  KEYS[1]  hash    the task
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  hash    record of its steps, see `_steps`
  KEYS[4]  string  key that never exists
  KEYS[5]  stream  values that the task emitted
  ARGV[1]  string  "<token of the worker>.<run>"
  ARGV[2]  string  task id
  ARGV[3]  string  field of the record
  ARGV[4]  string  value
  ARGV[5]  string  name of the signal for which the task stopped waiting, '' otherwise
  ARGV[6..]        values that the run emitted and that are not stored yet, see `_emit`; none if all are stored. With a
                   position at least the number of the request, because the last request of a run has the last position

  returns  the stored value: an earlier one if the field was already stored, '' for a position
           0  this worker no longer owns the run   1  the record is lost
]]
-- include _clock
-- include _steps
-- include _emit
local score = redis.call('ZSCORE', KEYS[2], ARGV[2])
local fields = redis.pcall('HMGET', KEYS[1], 'taskq_owner', 'taskq_steps')
if not score or fields[1] ~= ARGV[1] .. ':' .. score then
  return 0
elseif not fields[2] or redis.call('HGET', KEYS[3], 'of') ~= fields[2] then
  return 1
end
if ARGV[10] then
  redis.call('XLEN', KEYS[5]) -- raises an error, before the first write, if the key has another type
end
redis.call('DEL', KEYS[4]) -- comes first: after a DEL, even a full Redis allows the writes below
if string.sub(ARGV[3], 1, 2) == 'p:' then
  append(KEYS[3], KEYS[5], ARGV[1], ARGV[2], 6, ARGV[3], ARGV[4])
  return ''
elseif ARGV[6] then
  append(KEYS[3], KEYS[5], ARGV[1], ARGV[2], 6)
end
if string.sub(ARGV[3], 1, 2) == 'a:' then
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
elseif redis.call('HSETNX', KEYS[3], ARGV[3], ARGV[4]) == 0 then
  return redis.call('HGET', KEYS[3], ARGV[3])
elseif ARGV[5] ~= '' then
  redis.call('HINCRBY', KEYS[3], 'n:' .. ARGV[5], 1)
end
return ARGV[4]
