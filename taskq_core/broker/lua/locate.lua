--[[
  locate: find out which of several task keys exist. This script does not work in a cluster, where different nodes hold
  the keys.

  ARGV[1..]  string  task keys (at most 500)

  returns  per key: 1 if it exists, 0 if it does not exist or the Redis user may not read it. If the user may read none
           of them, the error of Redis
]]
local found, refused, refusal = {}, 0, nil
for i, key in ipairs(ARGV) do
  local reply = redis.pcall('EXISTS', key)
  if type(reply) == 'table' then
    refused, refusal, reply = refused + 1, reply, 0
  end
  found[i] = reply
end
if refused == #ARGV then
  return refusal
end
return found
