--[[
  emit: append values that a running task emits to the stream of this task.

  KEYS[1]  hash    the task
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  hash    record of its steps, see `_steps`
  KEYS[4]  stream  values, see `_emit`: field a attempt (from 1), s name of the step ('' none), v JSON
  KEYS[5]  string  key that never exists
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  "<token of the worker>.<run>"
  ARGV[3]  string  task id
  ARGV[4..]        the values, see `_emit`

  returns  2  stored   0  this worker no longer owns the run   1  the record of its steps is lost
]]
-- include _clock
-- include _steps
-- include _emit
local _, now_ns, now_ms = clock(ARGV[1])
local score = redis.call('ZSCORE', KEYS[2], ARGV[3])
if not score or redis.pcall('HGET', KEYS[1], 'taskq_owner') ~= ARGV[2] .. ':' .. score then
  return 0
end
redis.call('XLEN', KEYS[4]) -- raises an error, before the first write, if the key has another type
redis.call('DEL', KEYS[5]) -- comes first: after a DEL, even a full Redis allows the writes below
if not open_record(KEYS[1], KEYS[3], KEYS[4], now_ns) then
  return 1
end
append(KEYS[3], KEYS[4], ARGV[2], ARGV[3], 4, now_ms)
return 2
