--[[
  forget_ends: delete outcomes of workflow steps after the dispatcher has recorded these outcomes in their workflows.

  KEYS[1]  hash    outcomes of steps of workflows whose home queue is another
  ARGV[1..]        per outcome: field, delivered value. An outcome whose value has changed is kept

  returns  number of deleted outcomes
]]
local dropped = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    dropped = dropped + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return dropped
