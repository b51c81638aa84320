--[[
  cancel_steps: request that a task whose steps have begun ends by its own code: its next run is cancelled at the first
  step or wait without a stored result. Start the task if it waits. A second request changes nothing.

  KEYS[1]  hash    the task
  KEYS[2]  hash    record of its steps, see `_steps`
  KEYS[3]  list    pending tasks
  KEYS[4]  zset    scheduled: id by start (Unix s)
  KEYS[5]  zset    retry: id by next attempt (Unix s)
  KEYS[6]  list    wake tokens
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  task id
  ARGV[3]  string  what becomes of the task afterwards: 'discard' or 'archive'
  ARGV[4]  string  prefix of the queue's keys
  ARGV[5]  string  generation of the task, '' for any, see `_generation`

  returns  1 the request is stored   0 no such task, or a later one with the same id, or the task runs or has ended, or
           none of its runs has begun a step
]]
-- include _check
-- include _clock
-- include _place
-- include _wake
-- include _generation
local _, now_ns, now_ms = clock(ARGV[1])
check('LLEN', KEYS[3], KEYS[6])
check('ZCARD', KEYS[4], KEYS[5])
local fields = redis.call('HMGET', KEYS[1], 'state', 'taskq_steps', 'taskq_priority', 'taskq_line')
local state, mark = fields[1], fields[2]
local has_ended = state == 'archived' or state == 'completed'
if not state or not mark or state == 'active' or has_ended or is_later(KEYS[1], ARGV[5]) then
  return 0
end
local record = redis.call('HMGET', KEYS[2], 'of', 'try', 'cancel')
if record[1] ~= mark or not record[2] then
  return 0
elseif not record[3] then
  redis.call('HSET', KEYS[2], 'cancel', whole(now_ms) .. ' ' .. ARGV[3])
end
if (state == 'scheduled' and not fields[4]) or state == 'retry' then -- a limit starts the tasks in its line
  if redis.call('ZREM', KEYS[state == 'retry' and 5 or 4], ARGV[2]) == 1 then
    redis.call('HDEL', KEYS[2], 'waiting') -- so that the next run does not count as the end of the wait
    redis.call('HSET', KEYS[1], 'state', 'pending', 'pending_since', now_ns)
    join(KEYS[3], KEYS[6], ARGV[4] .. 't:', now_ms, ARGV[2], band_of(fields[3], false))
    wake(KEYS[6])
  end
end
return 1
