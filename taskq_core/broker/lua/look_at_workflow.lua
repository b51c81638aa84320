--[[
  look_at_workflow: read how a workflow stands, and on request ask to be told of its end on the queue's channel.

  KEYS[1]  hash    the workflow
  ARGV[1]  int     1 to be told
  ARGV[2..]        fields to read

  returns  nothing if there is no such workflow, or the values of the fields
]]
local state = redis.call('HGET', KEYS[1], 'state')
if not state or state == 'building' then
  return false
end
if ARGV[1] == '1' and state == 'running' then
  redis.pcall('HSET', KEYS[1], 'taskq_wait', '1') -- refused over maxmemory: the caller polls as well
end
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
