--[[
  count_runs: add the runs that a worker has counted per task type to the counters of an hour and to the total counters.

  KEYS[1]  hash    counters of the hour: numbers as text, by task type
  KEYS[2]  string  number of the last call of this worker
  KEYS[3]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  KEYS[4]  hash    totals: "<Unix hour of the last run>|<numbers as text>" by task type
  ARGV[1]  int     number of this call; a repeat, and a call that arrives after a later one, adds nothing
  ARGV[2]  int     seconds until KEYS[2] expires
  ARGV[3]  int     seconds until KEYS[1] expires
  ARGV[4]  int     seconds until KEYS[4] expires
  ARGV[5]  int     maximum number of types in a hash
  ARGV[6]  string  name under which all further types are counted
  ARGV[7]  int     the hour (Unix hours)
  ARGV[8]  int     hours after its last run for which the totals of a type are not removed for another type
  ARGV[9..] string per type: its name, its numbers as text

  The first write is DEL: after a DEL, even a full Redis allows the later writes of this script.

  returns  1  added   0  a repeat   -1  a key is of another type
]]
local function is_other(key)
  local kind = redis.call('TYPE', key).ok
  return kind ~= 'hash' and kind ~= 'none'
end
if is_other(KEYS[1]) or is_other(KEYS[4]) then
  return -1
end
if tonumber(redis.call('GET', KEYS[2]) or 0) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('DEL', KEYS[3])
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])

-- room: return how many more task types a hash may contain. If the totals are full, remove task types that last ran
-- long ago.
local function room(key)
  local stored = redis.call('HGETALL', key)
  local left = tonumber(ARGV[5]) - #stored / 2
  if key == KEYS[4] and left <= 0 then
    local oldest = tonumber(ARGV[7]) - tonumber(ARGV[8])
    for i = 1, #stored, 2 do
      local hour = tonumber(string.match(stored[i + 1], '^(%d+)|') or 0)
      if hour < oldest and stored[i] ~= ARGV[6] then
        redis.call('HDEL', key, stored[i])
        left = left + 1
      end
    end
  end
  return left
end

local left = {} -- how many more types each hash may hold, by key; read at the first new type

local function sum(key, head, name, more)
  local stored = redis.call('HGET', key, name)
  if not stored then
    left[key] = left[key] or room(key)
    if left[key] > 0 then
      left[key] = left[key] - 1
    else
      name = ARGV[6]
      stored = redis.call('HGET', key, name)
    end
  end
  local numbers = string.gsub(stored or '', '^%d+|', '')
  local sums, next_word = {}, string.gmatch(numbers, '%d+')
  for word in string.gmatch(more, '%d+') do
    sums[#sums + 1] = string.format('%.0f', tonumber(word) + tonumber(next_word() or 0))
  end
  for word in next_word do -- also keep numbers that a later release of taskq appended
    sums[#sums + 1] = word
  end
  redis.call('HSET', key, name, head .. table.concat(sums, ' '))
end

for i = 9, #ARGV, 2 do
  sum(KEYS[1], '', ARGV[i], ARGV[i + 1])
  sum(KEYS[4], ARGV[7] .. '|', ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[4])
return 1
