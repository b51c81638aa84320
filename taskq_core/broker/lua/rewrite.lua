--[[
  rewrite: replace the message of a task that waits, and let its unique lock follow.

  KEYS[1]  hash    the task
  ARGV[1]  string  task id
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  message that was read
  ARGV[4]  string  message to store
  ARGV[5]  string  unique lock named in the message that was read, '' none
  ARGV[6]  string  unique lock named in the message to store, '' none

  The lock moves only while this task holds it, with the time it has left. A repeat finds the new message and is done.

  returns  'ok'; '' no such task; 'changed' if another message stands there by now; 'duplicate' if another task holds
           the new lock; 'moving' on its way to another queue; otherwise its state, in which it does not wait
]]
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _renew
local fields = redis.pcall('HMGET', KEYS[1], 'state', 'msg', 'group', 'taskq_moving')
local state = fields[1]
if not state or not fields[2] then
  return ''
elseif fields[2] == ARGV[4] and ARGV[3] ~= ARGV[4] then
  return 'ok'
elseif fields[4] then
  return 'moving'
elseif state == 'active' or state == 'completed' then
  return state
elseif state == 'aggregating' then
  local score = fields[3] and redis.pcall('ZSCORE', ARGV[2] .. 'g:' .. fields[3], ARGV[1])
  if type(score) ~= 'string' then
    return state -- its group is being turned into one task
  end
end
if fields[2] ~= ARGV[3] then
  return 'changed'
end
local old, new = ARGV[5], ARGV[6]
if new ~= '' and new ~= old then
  if is_lock(old) and redis.pcall('GET', old) == ARGV[1] and is_taken(new, ARGV[1], ARGV[2] .. 't:') then
    return 'duplicate'
  end
  exchange(old, new, ARGV[1])
  redis.call('HSET', KEYS[1], 'msg', ARGV[4], 'unique_key', new)
else
  redis.call('HSET', KEYS[1], 'msg', ARGV[4])
end
return 'ok'
