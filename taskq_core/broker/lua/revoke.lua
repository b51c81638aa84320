--[[
  revoke: delete a task, unless it runs or has ended. Unlike `act`, this script needs only the rights of a producer.

  KEYS[1]  list    pending tasks
  KEYS[2]  zset    scheduled
  KEYS[3]  zset    retry
  KEYS[4]  zset    archived
  KEYS[5]  zset    completed
  KEYS[6]  set     names of groups with members
  ARGV[1]  string  task id
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  channel for the ids of ended tasks
  ARGV[4]  string  generation of the task, '' for any, see `_generation`

  returns  as `act`: 'ok'; '' no such task, or a later one with the same id; 'lost' if the structure of its state does
           not contain it, for example because it is in an aggregation set; otherwise its state
]]
-- include _check
-- include _clock
-- include _place
-- include _limits
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _generation
-- include _forget_steps
-- include _leave_active
-- include _lock
-- include _withdraw
-- include _erase
local id, key, keys = ARGV[1], ARGV[2] .. 't:' .. ARGV[1], structures(ARGV[2])
keys.done = ARGV[3]
local fields = redis.call('HMGET', key, 'state', 'unique_key', 'group', 'taskq_wait', 'taskq_permit', 'taskq_steps')
local state = fields[1]
if not state or is_later(key, ARGV[4]) then
  return ''
elseif state == 'active' or state == 'archived' or state == 'completed' then
  return state
end
if state == 'pending' then
  check('LLEN', KEYS[1])
elseif state == 'aggregating' then
  check('SCARD', KEYS[6])
  check('ZCARD', ARGV[2] .. 'g:' .. (fields[3] or ''))
else
  check('ZCARD', keys[state])
end
if not withdraw(keys, id, state, fields[3]) then
  return 'lost'
end
if fields[5] then
  local limits = limiter(ARGV[2], clock(''))
  limits.release_permits(id, key)
  limits.wake_limiter()
end
erase(keys, id, key, state, fields[2], fields[4], fields[6])
return 'ok'
