--[[
  look_at_workflow: read fields of a workflow. On request, have its end published on the queue's channel.

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
  redis.pcall('HSET', KEYS[1], 'taskq_wait', '1') -- pcall: refused over maxmemory; the caller also polls
end
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
