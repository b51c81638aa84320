--[[
  cancel_workflow: cancel a workflow, so that no further step of the workflow starts.

  KEYS[1]  hash    the workflow
  KEYS[2]  set     queues, other than the home queue, that received steps
  KEYS[3]  zset    workflows that still accept members
  KEYS[4]  zset    running workflows
  KEYS[5]  zset    ended workflows
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys

  A worker drops steps of a cancelled workflow when it fetches them.

  returns  nothing if the workflow does not exist. Otherwise 1 cancelled now / 2 cancelled earlier / 0 not cancelled,
           because it has ended; then the names of the queues in KEYS[2]
]]
-- include _engine
local now_s, now_ns, now_ms = clock(ARGV[1])
-- pass no keys to start a step, because a cancellation starts no step
local flow = workflows(ARGV[2], { s = now_s, ns = now_ns, ms = now_ms })
check('SCARD', KEYS[2])
check('ZCARD', KEYS[3], KEYS[4], KEYS[5])
local state = redis.call('HGET', KEYS[1], 'state')
if not state or not flow.open(KEYS[1]) then
  return false
end
local is_cancelled = flow.cancel() and 1 or state == 'cancelled' and 2 or 0
return { is_cancelled, unpack(redis.call('SMEMBERS', KEYS[2])) }
