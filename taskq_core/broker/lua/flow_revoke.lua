--[[
  flow_revoke: let workers drop steps of a workflow that wait in this queue, and say which run.

  KEYS[1]  list    active tasks
  KEYS[2]  string  present while steps of the workflow are to be dropped
  ARGV[1]  string  what the ids of its tasks begin with
  ARGV[2]  int     seconds KEYS[2] is kept

  returns  ids of its tasks that run
]]
local ids = redis.call('LRANGE', KEYS[1], 0, -1)
redis.call('SET', KEYS[2], '1', 'EX', ARGV[2])
local found = {}
for _, id in ipairs(ids) do
  if string.sub(id, 1, #ARGV[1]) == ARGV[1] then
    found[#found + 1] = id
  end
end
return found
