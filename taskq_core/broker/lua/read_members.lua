--[[
  read_members: read some of the tasks of an aggregation set, which become one task. Changes nothing.

  KEYS[1]  zset    the set: id by the time the task joined its group (Unix s)
  KEYS[2]  zset    aggregation sets: key by deadline (Unix s)
  ARGV[1]  int     number of members to skip
  ARGV[2]  int     number of members to read (at most 200)
  ARGV[3]  int     total bytes of messages after which no further member is read
  ARGV[4]  string  prefix of task keys
  ARGV[5]  int     largest message to read, see `_message`

  returns  1 if the set exists, else 0, then per member: id, message ('' none)
]]
-- include _message
if not redis.call('ZSCORE', KEYS[2], KEYS[1]) then
  return { 0 }
end
local first = tonumber(ARGV[1])
local ids = redis.call('ZRANGE', KEYS[1], first, first + math.min(tonumber(ARGV[2]), 200) - 1)
local reply, bytes, most = { 1 }, 0, tonumber(ARGV[3])
for _, id in ipairs(ids) do
  local message = message_of(ARGV[4] .. id, tonumber(ARGV[5])) or ''
  reply[#reply + 1] = id
  reply[#reply + 1] = message
  bytes = bytes + #message
  if bytes >= most then
    break
  end
end
return reply
