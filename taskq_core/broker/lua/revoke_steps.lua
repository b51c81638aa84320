--[[
  revoke_steps: make workers drop the waiting steps of a cancelled workflow in this queue. Return the running steps of
  the workflow.

  KEYS[1]  string  present while steps of the workflow are to be dropped
  ARGV[1]  string  prefix of the ids of the workflow's tasks
  ARGV[2]  int     seconds until KEYS[1] expires
  ARGV[3]  string  key of the active tasks; not in KEYS, because Redis 6.2 would then require the right to write it

  returns  ids of the workflow's running tasks; none if the Redis user may not list tasks
]]
local ids = redis.pcall('LRANGE', ARGV[3], 0, -1)
local said = type(ids.err) == 'string' and ids.err or ''
if string.find(said, 'ACL failure', 1, true) or string.find(said, 'executing the script can', 1, true) then
  ids = {}
elseif ids.err then
  error(said)
end
redis.call('SET', KEYS[1], '1', 'EX', ARGV[2])
local found = {}
for _, id in ipairs(ids) do
  if string.sub(id, 1, #ARGV[1]) == ARGV[1] then
    found[#found + 1] = id
  end
end
return found
