--[[
  count_groups: read a page of a queue's groups with their sizes. Changes nothing.

  KEYS[1]  set     names of groups with members
  ARGV[1]  string  cursor: '0' to begin, then the one that the previous call returned
  ARGV[2]  string  prefix of group keys
  ARGV[3]  int     approximate number of names to read

  returns  the next cursor ('0' at the end), then per group: name, number of members. A group may be returned twice.
]]
local page = redis.call('SSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[3])
local reply = { page[1] }
for _, name in ipairs(page[2]) do
  local size = redis.pcall('ZCARD', ARGV[2] .. name)
  reply[#reply + 1] = name
  reply[#reply + 1] = type(size) == 'number' and size or 0
end
return reply
