--[[
  grow_group: add members to a group of a workflow from inside: a member that runs adds them.

  KEYS[1]  hash    the workflow
  KEYS[2..6]     keys that starting a step may touch: pending, scheduled, wake tokens, started steps, outbox
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  string  name of the group's node
  ARGV[4]  string  id of the task that adds them
  ARGV[5..]        per member what to enqueue, see `_flow`

  A member that is there is not added again: the ids of members stay the same when the task that adds them is retried.

  returns  members added now; nothing if the group or the task that adds them has ended, or it is not a member
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
local i = redis.call('HGET', KEYS[1], 'n:' .. ARGV[3])
if not i or not flow.open(KEYS[1]) then
  return false
end
return flow.grow(i, ARGV[3], ARGV[4], ARGV, 5)
