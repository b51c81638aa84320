--[[
  acknowledge_runs: delete run counts of schedule entries from Redis, after the database table of the entries has
  recorded these counts.

  KEYS[1]    hash  runs, see take_runs
  ARGV[1..]        per entry: name, value that take_runs returned. An entry whose value has changed since then is kept

  The caller passes at most 500 names.

  returns  the number of deleted entries
]]
local taken = 0
local kind = redis.call('TYPE', KEYS[1])
if (kind.ok or kind) ~= 'hash' then
  return taken
end
for i = 1, #ARGV, 2 do
  local fresh, told = string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^(%d+:%d+):(%d+:%d+)$')
  if told and told == ARGV[i + 1] then
    taken = taken + 1
    if fresh == '0:0' then
      redis.call('HDEL', KEYS[1], ARGV[i])
    else
      redis.call('HSET', KEYS[1], ARGV[i], fresh .. ':0:0')
    end
  end
end
return taken
