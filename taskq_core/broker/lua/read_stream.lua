--[[
  read_stream: read values that a task emitted.

  KEYS[1]  hash    the task
  KEYS[2]  hash    record of its steps, see `_steps`
  KEYS[3]  stream  the values, see `emit`
  ARGV[1]  string  id of the last value that the caller has, '-' without one
  ARGV[2]  int     maximum number of values

  A task without retention is deleted when it ends. Its stream is kept for another minute, so that readers get the last
  values.

  returns  state of the task ('' if it does not exist), and the values: each its id and its fields
]]
local fields = redis.call('HMGET', KEYS[1], 'state', 'taskq_steps', 'taskq_wait')
if fields[1] and (not fields[2] or fields[2] ~= redis.call('HGET', KEYS[2], 'of')) then
  return { fields[1], {} } -- the stream of an earlier task with the same id
end
local first = ARGV[1] == '-' and '-' or '(' .. ARGV[1]
local values = redis.call('XRANGE', KEYS[3], first, '+', 'COUNT', ARGV[2])
if fields[1] and not fields[3] and fields[1] ~= 'completed' and fields[1] ~= 'archived' then
  redis.pcall('HSET', KEYS[1], 'taskq_wait', '1') -- ask for a message at the task's end; a full Redis refuses this
end
return { fields[1] or '', values }
