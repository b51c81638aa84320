--[[
  cancel_workflow: cancel a workflow: no further step of it starts.

  KEYS[1]  hash    the workflow
  KEYS[2]  set     queues other than its home that steps were sent to
  KEYS[3]  zset    workflows that are open for members
  KEYS[4]  zset    workflows that run
  KEYS[5]  zset    workflows that have ended
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with

  A worker drops steps of a cancelled workflow when it fetches them.

  returns  nothing if the workflow does not exist, or 1 cancelled now / 2 before / 0 it has ended otherwise, then the queues
]]
-- include _engine
local now_s, now_ns, now_ms = clock(ARGV[1])
local flow = workflows(ARGV[2], { s = now_s, ns = now_ns, ms = now_ms }) -- no step starts: the queue's keys do not matter
check('SCARD', KEYS[2])
check('ZCARD', KEYS[3], KEYS[4], KEYS[5])
local state = redis.call('HGET', KEYS[1], 'state')
if not state or not flow.open(KEYS[1]) then
  return false
end
local is_cancelled = flow.cancel() and 1 or state == 'cancelled' and 2 or 0
return { is_cancelled, unpack(redis.call('SMEMBERS', KEYS[2])) }
