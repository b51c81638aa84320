--[[
  grow_group: add members to a group of a workflow. A running task that is a member of the same group calls this script.

  KEYS[1]  hash    the workflow
  KEYS[2..6]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  string  name of the group's node
  ARGV[4]  string  id of the task that adds them
  ARGV[5..]        per member: packed task, see `unpack_step` in `_flow`

  A retry of the calling task passes the same member ids, so existing members are not added again.

  returns  number of new members; nothing if the group or the calling task has ended, or if the task is not a member
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
local i = redis.call('HGET', KEYS[1], 'n:' .. ARGV[3])
if not i or not flow.open(KEYS[1]) then
  return false
end
return flow.with_steps(flow.grow(i, ARGV[3], ARGV[4], ARGV, 5))
