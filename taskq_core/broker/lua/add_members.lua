--[[
  add_members: add members to an open group of a workflow, and enqueue these members. A client calls this script for
  each batch of new members.

  KEYS[1]  hash    the workflow
  KEYS[2..6]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  int     number of the group's node
  ARGV[4]  int     number of the first of these members
  ARGV[5]  int     seconds without another call after which the caller counts as dead
  ARGV[6]  string  id of the workflow
  ARGV[7..]        per member: packed task, see `unpack_step` in `_flow`

  returns  1  added by this or an earlier call   0  the group is closed, or the workflow has ended or was deleted
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
return flow.with_steps(1)
