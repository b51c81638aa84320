--[[
  claim: apply limits to an active task whose producer did not know these limits. The worker calls this script before it
  runs the task.

  KEYS[1]  list    active tasks
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  hash    the task
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  "<token of the worker>.<run>"
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  string  task id
  ARGV[5]  string  its limits, see `_limits`; ignored if the task already has limits

  A task whose limits do not allow it to run now leaves the active list and waits. The wait uses no attempt of the task.

  returns  1  the worker may run it   2  it waits for a limit   0  this worker no longer owns the run
]]
-- include _clock
-- include _place
-- include _limits
local unique_prefix = ARGV[3] .. 'unique:'
-- include _unique
local score = redis.call('ZSCORE', KEYS[2], ARGV[4])
redis.call('LLEN', KEYS[1]) -- raises an error, before the first write, if the key has another type
local fields = redis.pcall('HMGET', KEYS[3], 'taskq_owner', 'taskq_limit', 'taskq_unique', 'unique_key')
if not score or fields[1] ~= ARGV[2] .. ':' .. score then
  return 0
elseif fields[2] then
  return 1 -- the task already has limits, which `dequeue` has applied
end
-- comes first: after an LREM, even a full Redis allows the writes below
redis.call('LREM', KEYS[1], 1, ARGV[4])
redis.call('HSET', KEYS[3], 'taskq_limit', ARGV[5])
local limits = limiter(ARGV[3], clock(ARGV[1]))
if limits.hand_out(ARGV[4], KEYS[3], ARGV[5]) then
  redis.call('LPUSH', KEYS[1], ARGV[4])
  return 1
end
redis.call('ZREM', KEYS[2], ARGV[4])
-- takes the unique lock again, if it was released when the task became active
follow(fields[3], fields[4], ARGV[4], 'scheduled')
return 2
