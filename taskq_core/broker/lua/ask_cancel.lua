--[[
  ask_cancel: ask the worker of a running task to cancel the run. Record whether the task is to be retried, discarded or
  archived afterwards.

  KEYS[1]  hash    the task
  ARGV[1]  string  outcome: 'retry', 'discard' or 'archive'
  ARGV[2]  string  generation of the task, '' for any, see `_generation`
  ARGV[3]  string  channel of the requests to cancel, on which workers compare the id
  ARGV[4]  string  task id

  The record contains the time at which the worker received the task, so the record does not apply to a later run.

  returns  the state of the task, or nothing if it does not exist or is a later one with the same id; number of
           subscribers of the channel if the task runs, else 0
]]
-- include _generation
local fields = redis.call('HMGET', KEYS[1], 'state', 'taskq_started')
if not fields[1] or is_later(KEYS[1], ARGV[2]) then
  return { false, 0 }
elseif fields[1] ~= 'active' then
  return { fields[1], 0 }
end
redis.call('HSET', KEYS[1], 'taskq_cancel', (fields[2] or '') .. ':' .. ARGV[1])
return { 'active', redis.call('PUBLISH', ARGV[3], ARGV[4]) }
