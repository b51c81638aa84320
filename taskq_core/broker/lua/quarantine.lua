--[[
  quarantine: move an active task to quarantine, because its message cannot be decoded. The stored bytes are not changed.

  KEYS[1]  list    active tasks
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  hash    the task
  KEYS[4]  zset    quarantine: id by time (Unix s)
  KEYS[5]  hash    new key of the task
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  "<token of the worker>.<run>"
  ARGV[3]  string  task id

  returns  1  moved to quarantine   0  this worker no longer owns the run
]]
-- include _clock
-- include _place
-- include _limits
local unique_prefix = string.sub(KEYS[2], 1, -6) .. 'unique:'
-- include _unique
local now_s = clock(ARGV[1])
redis.call('ZCARD', KEYS[4]) -- raises an error, before the first write, if the key has another type
local score = redis.call('ZSCORE', KEYS[2], ARGV[3])
if not score or redis.pcall('HGET', KEYS[3], 'taskq_owner') ~= ARGV[2] .. ':' .. score then
  return 0
end
redis.call('LREM', KEYS[1], 1, ARGV[3])
redis.call('ZREM', KEYS[2], ARGV[3])
local limits = limiter(string.sub(KEYS[2], 1, -6), clock(ARGV[1]))
limits.release_permits(ARGV[3], KEYS[3])
release(redis.call('HGET', KEYS[3], 'unique_key'), ARGV[3])
redis.call('RENAME', KEYS[3], KEYS[5])
redis.call('HDEL', KEYS[5], 'taskq_owner', 'taskq_started')
redis.call('ZADD', KEYS[4], whole(now_s), ARGV[3])
limits.finish()
return 1
