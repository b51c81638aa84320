--[[
  list_limits: return, for each slot of a queue's limits, how many tasks hold a permit and how many tasks wait for a
  permit. A slot is one value of a limit's key. Changes nothing.

  KEYS[1]  any     a key of the queue
  ARGV[1]  string  cursor of the scan over all keys: '0' to begin, then the one that the previous call returned
  ARGV[2]  string  prefix of the keys of limits
  ARGV[3]  string  pattern that the keys of holders and lines match
  ARGV[4]  int     approximate number of keys to scan

  returns  the next cursor ('0' at the end), then per slot: name, number of holders, number of waiting tasks. A slot may
           be returned twice
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
