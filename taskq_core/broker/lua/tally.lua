--[[
  tally: add what became of runs, by task type, to the tally of an hour.

  KEYS[1]  hash    tally of the hour: numbers as text, by task type
  KEYS[2]  string  number of the last call of this worker
  KEYS[3]  any     a key that never exists
  ARGV[1]  int     number of this call; a repeat adds nothing
  ARGV[2]  int     seconds the number is kept
  ARGV[3]  int     seconds the tally is kept
  ARGV[4]  int     most types
  ARGV[5]  string  type that stands for what is beyond
  ARGV[6..] string per type: its name, its numbers as text

  DEL comes before any other write: Redis accepts it also over maxmemory, and with it those that follow.

  returns  1  added   0  a repeat   -1  the key is of another type
]]
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  return -1
end
if redis.call('GET', KEYS[2]) == ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[3])
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
local left -- how many further types are kept apart; asked only when one comes
for i = 6, #ARGV, 2 do
  local name = ARGV[i]
  local stored = redis.call('HGET', KEYS[1], name)
  if not stored then
    left = left or tonumber(ARGV[4]) - #redis.call('HGETALL', KEYS[1]) / 2
    if left > 0 then
      left = left - 1
    else
      name = ARGV[5]
      stored = redis.call('HGET', KEYS[1], name)
    end
  end
  local sums, next_word = {}, string.gmatch(stored or '', '%d+')
  for word in string.gmatch(ARGV[i + 1], '%d+') do
    sums[#sums + 1] = string.format('%.0f', tonumber(word) + tonumber(next_word() or 0))
  end
  for word in next_word do -- numbers that a later release counts
    sums[#sums + 1] = word
  end
  redis.call('HSET', KEYS[1], name, table.concat(sums, ' '))
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
