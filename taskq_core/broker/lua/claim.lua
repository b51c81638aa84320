--[[
  claim: ask whether a task may run now that a worker took and whose producer knew nothing of its limits.

  KEYS[1]  list    active tasks
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  hash    the task
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  "<token of the worker>.<run>"
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  string  task id
  ARGV[5]  string  its limits, see `_limits`; they count unless it has some already

  One that may not leaves the active tasks and waits, without having used an attempt.

  returns  1  run it   2  it waits   0  the run is over
]]
-- include _clock
-- include _place
-- include _limits
local unique_prefix = ARGV[3] .. 'unique:'
-- include _unique
local score = redis.call('ZSCORE', KEYS[2], ARGV[4])
redis.call('LLEN', KEYS[1]) -- a key of another type is refused here, before the first write
local fields = redis.pcall('HMGET', KEYS[3], 'taskq_owner', 'taskq_limit', 'taskq_unique', 'unique_key')
if not score or fields[1] ~= ARGV[2] .. ':' .. score then
  return 0
elseif fields[2] then
  return 1 -- it was asked when it was handed out
end
redis.call('LREM', KEYS[1], 1, ARGV[4]) -- first: accepted also over maxmemory
redis.call('HSET', KEYS[3], 'taskq_limit', ARGV[5])
local limits = limiter(ARGV[3], clock(ARGV[1]))
if limits.hand_out(ARGV[4], KEYS[3], ARGV[5]) then
  redis.call('LPUSH', KEYS[1], ARGV[4])
  return 1
end
redis.call('ZREM', KEYS[2], ARGV[4])
follow(fields[3], fields[4], ARGV[4], 'scheduled') -- the worker released it at the start, if its rule says so
return 2
