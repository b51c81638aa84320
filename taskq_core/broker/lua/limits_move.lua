--[[
  limits_move: whether tasks wait for a rate limit of a queue, so that time alone lets them start. Reads only.

  KEYS[1]  zset    slots by when the next of their line may start (Unix ms)
  ARGV[1]  string  prefix of the keys of limits

  returns  1 if some do (of the first 100 slots) / 0
]]
local slots = redis.pcall('ZRANGE', KEYS[1], 0, 99)
for _, slot in ipairs(slots) do
  local waiting = redis.pcall('ZCARD', ARGV[1] .. 'w:' .. slot)
  if type(waiting) == 'number' and waiting > 0 then
    return 1
  end
end
return 0
