--[[
  revoke_steps: let workers drop steps of a workflow that wait in this queue, and say which run.

  KEYS[1]  string  present while steps of the workflow are to be dropped
  ARGV[1]  string  what the ids of its tasks begin with
  ARGV[2]  int     seconds KEYS[1] is kept
  ARGV[3]  string  key of the active tasks; not in KEYS, because Redis 6.2 would ask for the right to write it

  returns  ids of its tasks that run; none for a user who may not list tasks
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
