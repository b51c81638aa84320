--[[
  locate: say which of some task keys exist. Not for a cluster, where the keys of several queues are on several nodes.

  ARGV  strings  task keys, at most 500

  returns  for each key 1 if it exists, 0 if it does not or the user may not read it; the refusal if all were refused
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
