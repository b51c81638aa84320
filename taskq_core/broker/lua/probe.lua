--[[
  probe: check the types of a queue's structures, and that the store accepts writes.

  KEYS[1]   a key that never exists; deleting it is a write
  KEYS[2]   list    pending tasks
  KEYS[3]   list    active tasks
  KEYS[4..]         the other structures
  ARGV[1]   int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2..] string  per structure, from KEYS[2] on: the type it must have

  returns  now (Unix ns as text), pending tasks, active tasks, per structure the type it has instead ('' as it must be,
           or absent)
]]
-- include _clock
local _, now_ns = clock(ARGV[1])
redis.call('DEL', KEYS[1])
local reply = { now_ns, 0, 0 }
for i = 2, #ARGV do
  local kind = redis.call('TYPE', KEYS[i]).ok
  reply[#reply + 1] = kind ~= 'none' and kind ~= ARGV[i] and kind or ''
end
for i = 2, 3 do
  if reply[i + 2] == '' then
    reply[i] = redis.call('LLEN', KEYS[i])
  end
end
return reply
