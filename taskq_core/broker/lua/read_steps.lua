--[[
  read_steps: read the steps record of a task.

  KEYS[1]  hash    the task
  KEYS[2]  hash    record of its steps, see `_steps`

  returns  nothing if the task does not exist or has no record; otherwise the fields of the record with their values
]]
local mark = redis.call('HGET', KEYS[1], 'taskq_steps')
if not mark or redis.call('HGET', KEYS[2], 'of') ~= mark then
  return false
end
return redis.call('HGETALL', KEYS[2])
