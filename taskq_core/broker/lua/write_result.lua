--[[
  write_result: store a result that a task writes while it is running.

  KEYS[1]  hash    the task
  KEYS[2]  zset    leases: id by expiry (Unix s)
  ARGV[1]  string  "<token of the worker>.<run>"
  ARGV[2]  string  task id
  ARGV[3]  bytes   result

  returns  1  stored   0  this worker no longer owns the run
]]
local score = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not score or redis.pcall('HGET', KEYS[1], 'taskq_owner') ~= ARGV[1] .. ':' .. score then
  return 0
end
redis.call('HDEL', KEYS[1], 'pending_since') -- Redis allows HDEL over maxmemory, and then the later writes
redis.call('HSET', KEYS[1], 'result', ARGV[3])
return 1
