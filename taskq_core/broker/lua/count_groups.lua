--[[
  count_groups: read names and sizes of some of the groups of a queue. Reads only.

  KEYS[1]  set     names of groups with members
  ARGV[1]  string  where to go on, '0' at the start
  ARGV[2]  string  prefix of group keys
  ARGV[3]  int     names to look at in about

  returns  where to go on ('0' at the end), then per group: name, members. A group may come twice while others change.
]]
local page = redis.call('SSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[3])
local reply = { page[1] }
for _, name in ipairs(page[2]) do
  local size = redis.pcall('ZCARD', ARGV[2] .. name)
  reply[#reply + 1] = name
  reply[#reply + 1] = type(size) == 'number' and size or 0
end
return reply
