--[[
  ask_cancel: record whether a running task is to be retried, discarded or archived after its worker has cancelled the
  run.

  KEYS[1]  hash    the task
  ARGV[1]  string  outcome: 'retry', 'discard' or 'archive'

  The record contains the time at which the worker received the task, so the record does not apply to a later run.

  returns  the state of the task, or nothing if it does not exist
]]
local fields = redis.call('HMGET', KEYS[1], 'state', 'taskq_started')
if fields[1] == 'active' then
  redis.call('HSET', KEYS[1], 'taskq_cancel', (fields[2] or '') .. ':' .. ARGV[1])
end
return fields[1]
