--[[
  write_fields: store the progress or the result of a running task.

  KEYS[1]  hash    the task
  KEYS[2]  zset    leases: id by expiry (Unix s)
  ARGV[1]  string  "<token of the worker>.<run>"
  ARGV[2]  string  task id
  ARGV[3]  string  channel for the ids of changed tasks
  ARGV[4..]        fields of the hash and their values (at most 10 fields)

  returns  1  stored   0  this worker no longer owns the run
]]
local score = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not score or redis.pcall('HGET', KEYS[1], 'taskq_owner') ~= ARGV[1] .. ':' .. score then
  return 0
end
redis.call('HDEL', KEYS[1], 'pending_since') -- comes first: after an HDEL, even a full Redis allows the writes below
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
if redis.call('HGET', KEYS[1], 'taskq_wait') == '2' then
  redis.call('PUBLISH', ARGV[3], ARGV[2])
end
return 1
