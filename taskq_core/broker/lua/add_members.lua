--[[
  add_members: add members to a group of a workflow while it is open, and enqueue them.

  KEYS[1]  hash    the workflow
  KEYS[2..6]     keys that starting a step may touch: pending, scheduled, wake tokens, started steps, outbox
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  int     number of the group's node
  ARGV[4]  int     number of the first of these members
  ARGV[5]  int     seconds until the next call, after which the caller that adds members counts as dead
  ARGV[6]  string  id of the workflow
  ARGV[7..]        per member what to enqueue, see `_flow`

  returns  1  added, also by an earlier call   0  the group is not open, or the workflow has ended or is gone
]]
-- include _engine
local flow, now_s = engine(ARGV[2], ARGV[1])
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
flow.open(KEYS[1])
for at = 7, #ARGV do
  flow.add_member(i, first + at - 7, ARGV[at])
end
return 1
