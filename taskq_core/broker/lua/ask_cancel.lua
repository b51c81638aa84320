--[[
  ask_cancel: note on a running task what is to become of it once its worker has cancelled it.

  KEYS[1]  hash    the task
  ARGV[1]  string  what: 'retry', 'discard', 'archive'

  The note names the run by when its worker got it, so that it says nothing of a later one.

  returns  the state of the task, or nothing if it does not exist
]]
local fields = redis.call('HMGET', KEYS[1], 'state', 'taskq_started')
if fields[1] == 'active' then
  redis.call('HSET', KEYS[1], 'taskq_cancel', (fields[2] or '') .. ':' .. ARGV[1])
end
return fields[1]
