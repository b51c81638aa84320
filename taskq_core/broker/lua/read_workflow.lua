--[[
  read_workflow: read fields of a workflow. If requested, ask workers to publish the end of the workflow on the queue's
  channel.

  KEYS[1]  hash    the workflow
  ARGV[1]  int     1 to publish its end, else 0
  ARGV[2..]        fields to read

  returns  nothing if the workflow does not exist, or the values of the fields
]]
local state = redis.call('HGET', KEYS[1], 'state')
if not state or state == 'building' then
  return false
end
if ARGV[1] == '1' and state == 'running' then
  -- pcall, because a full Redis refuses this write. The caller also polls, so it needs no message
  redis.pcall('HSET', KEYS[1], 'taskq_wait', '1')
end
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
