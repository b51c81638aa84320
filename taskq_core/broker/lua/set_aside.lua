--[[
  set_aside: move what stands at keys of a queue and is of another type than it must be, whole and as it is.

  KEYS[1]    a key that never exists; deleting it is a write
  KEYS[2..]  per key: the key, and where to move what stands there
  ARGV[1..]  string  per key: the type it must have

  A key that is of its type, or gone, is left alone, and nothing is written over. The place where it goes tells when it
  was moved, so a call whose answer was lost can be sent again. At most 50 keys a call. DEL comes before any other
  write: Redis accepts it also over maxmemory, and with it those that follow.

  returns  per key: the type of what stands where it was to go ('' nothing: it was not moved)
]]
local reply = {}
redis.call('DEL', KEYS[1])
for i = 2, 2 * #ARGV, 2 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  local moved = redis.call('TYPE', KEYS[i + 1]).ok
  if kind ~= 'none' and kind ~= ARGV[i / 2] and moved == 'none' then
    redis.call('RENAME', KEYS[i], KEYS[i + 1])
    moved = kind
  end
  reply[#reply + 1] = moved == 'none' and '' or moved
end
return reply
