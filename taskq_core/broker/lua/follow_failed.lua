--[[
  follow_failed: find failed steps whose archived task was run again by Go's tools and has succeeded, and report the
  success to their workflows. Forget steps whose task was deleted.

  KEYS[1..5]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  KEYS[6]  zset    failed steps
  KEYS[7]  zset    completed
  KEYS[8]  set     other queues that steps were sent to
  KEYS[9]  zset    running workflows
  KEYS[10] zset    ended workflows
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  int     number of the oldest steps to skip
  ARGV[5]  int     number of steps to check (at most 500)

  returns  number of checked steps, number of steps that are no longer listed, 1 if outcomes must be sent to another
           queue, the names of other queues (KEYS[8]; none if no workflow is stored here)
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
check('ZCARD', KEYS[7])
local listed = redis.call('ZRANGE', KEYS[6], ARGV[4], tonumber(ARGV[4]) + tonumber(ARGV[5]) - 1)
local gone = 0
for _, step in ipairs(listed) do
  local id = string.match(step, '^%S+ %a (%S+) ')
  local key = ARGV[3] .. 't:' .. (id or '')
  local fields = redis.pcall('HMGET', key, 'state', 'taskq_step')
  local is_over = not fields.err and fields[2] ~= step
  if not is_over and fields[1] == 'completed' and redis.call('ZSCORE', KEYS[7], id) then
    is_over = true
    if flow.settled(step, 'c', key, redis.call('HGET', key, 'msg') or '', '') == 'd' then
      redis.call('ZREM', KEYS[7], id)
      redis.call('DEL', key)
    end
  end
  if is_over then
    redis.call('ZREM', KEYS[6], step)
    gone = gone + 1
  end
end
local others = {}
if redis.call('EXISTS', KEYS[9], KEYS[10]) > 0 then
  others = redis.call('SMEMBERS', KEYS[8])
end
return flow.with_steps({ #listed, gone, flow.has_ends_to_send and 1 or 0, others })
