--[[
  ask_cancel: ask the worker of a running task to cancel the run. Record whether the task is to be retried, discarded or
  archived afterwards.

  A task whose steps have begun ends by its own code, unless it is to be retried: the request is stored in the record of its
  steps, so it holds for later runs too.

  KEYS[1]  hash    the task
  KEYS[2]  hash    record of its steps, see `_steps`
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  outcome: 'retry', 'discard' or 'archive'
  ARGV[3]  string  generation of the task, '' for any, see `_generation`
  ARGV[4]  string  channel of the requests to cancel, on which workers compare the id
  ARGV[5]  string  task id

  The field taskq_cancel contains the time at which the worker received the task, so it does not apply to a later run.

  returns  the state of the task, or nothing if it does not exist or is a later one with the same id; number of
           subscribers of the channel if the task runs, else 0
]]
-- include _clock
-- include _generation
local fields = redis.call('HMGET', KEYS[1], 'state', 'taskq_started', 'taskq_steps')
if not fields[1] or is_later(KEYS[1], ARGV[3]) then
  return { false, 0 }
elseif fields[1] ~= 'active' then
  return { fields[1], 0 }
end
local wish = ARGV[2]
local record = wish ~= 'retry' and fields[3] and redis.call('HMGET', KEYS[2], 'of', 'try', 'cancel') or {}
if record[1] and record[1] == fields[3] and record[2] then
  local _, _, now_ms = clock(ARGV[1])
  redis.call('HSET', KEYS[2], 'cancel', record[3] or whole(now_ms) .. ' ' .. wish)
  wish = 'steps'
end
redis.call('HSET', KEYS[1], 'taskq_cancel', (fields[2] or '') .. ':' .. wish)
return { 'active', redis.call('PUBLISH', ARGV[4], ARGV[5]) }
