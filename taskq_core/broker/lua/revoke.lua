--[[
  revoke: delete a waiting task. If the task is in another state, only return the state.

  KEYS[1]  hash    the task
  KEYS[2]  list    pending tasks
  KEYS[3]  zset    scheduled
  KEYS[4]  zset    retry
  KEYS[5]  set     names of groups with members
  ARGV[1]  string  task id
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  channel for the ids of ended tasks

  returns  the state that the task had, or nothing if it does not exist. Only pending, scheduled, retry and aggregating
           tasks are deleted. Nothing is also returned if the structure of its state does not contain the task, for
           example because it is in an aggregation set
]]
-- include _clock
-- include _place
-- include _limits
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _forget_steps
local fields = redis.call('HMGET', KEYS[1], 'state', 'unique_key', 'group', 'taskq_wait', 'taskq_permit', 'taskq_steps')
local state = fields[1]
if not state then
  return false
end
local removed = 0
if state == 'pending' then
  removed = redis.call('LREM', KEYS[2], 0, ARGV[1])
elseif state == 'scheduled' then
  removed = redis.call('ZREM', KEYS[3], ARGV[1])
elseif state == 'retry' then
  removed = redis.call('ZREM', KEYS[4], ARGV[1])
elseif state == 'aggregating' and fields[3] then
  redis.call('SCARD', KEYS[5]) -- raises an error, before the first write, if the key has another type
  local group = ARGV[2] .. 'g:' .. fields[3]
  removed = redis.call('ZREM', group, ARGV[1])
  if removed == 1 and redis.call('ZCARD', group) == 0 then
    redis.call('SREM', KEYS[5], fields[3])
  end
end
if removed > 0 then
  release(fields[2], ARGV[1])
  if fields[5] then
    local limits = limiter(ARGV[2], clock(''))
    limits.release_permits(ARGV[1], KEYS[1])
    limits.wake_limiter()
  end
  redis.call('DEL', KEYS[1])
  if fields[6] then
    forget_steps(ARGV[2], ARGV[1])
  end
  if fields[4] then
    redis.call('PUBLISH', ARGV[3], ARGV[1])
  end
elseif state == 'pending' or state == 'scheduled' or state == 'retry' or state == 'aggregating' then
  return false
end
return state
