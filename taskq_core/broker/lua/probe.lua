--[[
  probe: check that the keys of a queue have the right types, and that Redis accepts writes.

  KEYS[1]   a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  KEYS[2]   list    pending tasks
  KEYS[3]   list    active tasks
  KEYS[4..]         the other structures
  ARGV[1]   int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2..] string  per structure, from KEYS[2] on: required type

  returns  now (Unix ns as text), number of pending tasks, number of active tasks, then per structure its wrong type, ''
           if the type is right or the key does not exist
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
