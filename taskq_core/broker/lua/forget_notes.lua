--[[
  forget_notes: delete notes that were delivered to their workflows.

  KEYS[1]  hash    notes
  ARGV[1..]        field and delivered value of each

  returns  notes dropped
]]
local dropped = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    dropped = dropped + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return dropped
