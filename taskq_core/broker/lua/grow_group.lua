--[[
  grow_group: add members to a group of a workflow from inside: a member that runs adds them.

  KEYS[1]  hash    the workflow
  KEYS[2]  list    pending tasks of its home queue
  KEYS[3]  zset    scheduled
  KEYS[4]  list    wake tokens
  KEYS[5]  zset    steps that were started
  KEYS[6]  zset    what is to be sent to other queues
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  string  name of the group's node
  ARGV[4]  string  id of the task that adds them
  ARGV[5..]        per member what to enqueue, see `_flow`

  A member that is there is not added again: the ids of members stay the same when the task that adds them is retried.

  returns  members added now; nothing if the group or the task that adds them has ended, or it is none of this group
]]
-- include _clock
-- include _lock
-- include _marks
-- include _place
-- include _unique
-- include _store
-- include _wake
-- include _flow
local now_s, now_ns, now_ms = clock(ARGV[1])
redis.call('LLEN', KEYS[2]) -- keys of another type are refused here, before the first write
redis.call('ZCARD', KEYS[3])
redis.call('LLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('ZCARD', KEYS[6])
local i = redis.call('HGET', KEYS[1], 'n:' .. ARGV[3])
local flow = workflows(ARGV[2], { s = now_s, ns = now_ns, ms = now_ms })
if not i or not flow.open(KEYS[1]) then
  return false
end
return flow.grow(i, ARGV[3], ARGV[4], ARGV, 5)
