--[[
  set_aside: rename keys of a queue that have the wrong type, so that taskq can use the names and no data is lost.

  KEYS[1]    a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  KEYS[2..]  per key: the key, and its new name
  ARGV[1..]  string  per key: the type it must have

  A missing key, or a key of the right type, is not renamed, and no key is overwritten. The new name contains the time
  of the renaming, so a call whose answer was lost can be sent again. The caller passes at most 50 keys. The first write
  is a DEL: after a DEL, even a full Redis allows the later writes of this script.

  returns  per key: the type of the renamed key ('' if it was not renamed)
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
