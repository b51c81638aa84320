--[[
  limits_move: return whether any task waits for a rate limit. Such a task may start as time passes, without any other
  event. Changes nothing.

  KEYS[1]  zset    slots by time at which the next waiting task may start (Unix ms)
  ARGV[1]  string  prefix of the keys of limits

  returns  1 if a task waits in one of the first 100 slots, else 0
]]
local slots = redis.pcall('ZRANGE', KEYS[1], 0, 99)
for _, slot in ipairs(slots) do
  local waiting = redis.pcall('ZCARD', ARGV[1] .. 'w:' .. slot)
  if type(waiting) == 'number' and waiting > 0 then
    return 1
  end
end
return 0
