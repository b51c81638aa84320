--[[
  add_members: add members to a group of a workflow while it is open, and enqueue them.

  KEYS[1]  hash    the workflow
  KEYS[2]  list    pending tasks of its home queue
  KEYS[3]  zset    scheduled
  KEYS[4]  list    wake tokens
  KEYS[5]  zset    steps that were started
  KEYS[6]  zset    what is to be sent to other queues
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  int     number of the group's node
  ARGV[4]  int     number of the first of these members
  ARGV[5]  int     seconds until the next call, after which whoever adds members is taken for dead
  ARGV[6]  string  id of the workflow
  ARGV[7..]        per member what to enqueue, see `_flow`

  returns  1  added, also by an earlier call   0  the group is not open, or the workflow has ended or is gone
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
local i, first = ARGV[3], tonumber(ARGV[4])
local facts = redis.call('HMGET', KEYS[1], 'state', 'go' .. i, 'gt' .. i)
if facts[1] ~= 'running' or facts[2] ~= '1' then
  return 0
end
redis.call('ZADD', ARGV[2] .. 'wf-open', whole(now_s + tonumber(ARGV[5])), ARGV[6])
if tonumber(facts[3]) > first then
  return 1
end
redis.call('HSET', KEYS[1], 'gt' .. i, whole(first + #ARGV - 6))
local flow = workflows(ARGV[2], { s = now_s, ns = now_ns, ms = now_ms })
flow.open(KEYS[1])
for at = 7, #ARGV do
  flow.add_member(i, first + at - 7, ARGV[at])
end
return 1
