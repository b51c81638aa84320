--[[
  list_limits: read some slots of a queue's limits. Reads only.

  KEYS[1]  any     a key of the queue
  ARGV[1]  string  cursor of the scan over all keys: '0' to begin, then what the call before returned
  ARGV[2]  string  prefix of the keys of limits
  ARGV[3]  string  pattern that the keys of holders and lines match
  ARGV[4]  int     about how many keys to look at

  returns  the next cursor ('0' at the end), then per slot, which may come twice: slot, holders, tasks that wait
]]
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[3], 'COUNT', ARGV[4])
local reply = { page[1] }
local function size(key)
  local found = redis.pcall('ZCARD', key)
  return type(found) == 'number' and found or 0
end
for _, key in ipairs(page[2]) do
  local slot = string.sub(key, #ARGV[2] + 3)
  reply[#reply + 1] = slot
  reply[#reply + 1] = size(ARGV[2] .. 'h:' .. slot)
  reply[#reply + 1] = size(ARGV[2] .. 'w:' .. slot)
end
return reply
