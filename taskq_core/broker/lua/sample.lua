--[[
  sample: store the current figures of a queue as a sample. The queue has one list of samples per time resolution. A
  list gets the sample only if the interval of the list has passed since its last sample.

  KEYS[1]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  KEYS[2..] list   per resolution: its samples, the newest first
  ARGV     per resolution: seconds between two samples, maximum number of samples, seconds until the list expires, the
           sample (its bytes 2 to 5 are its Unix second)

  A sample is added if the list contains no sample of the same interval, so two workers that both believe to be the
  leader add only one. Samples with a later time were written while Redis's clock was ahead, and are deleted. The first
  write is a DEL: after a DEL, even a full Redis allows the later writes of this script.

  returns  per resolution: 1 added, 0 not due, -1 the key is of another type
]]
local function second_of(sample)
  local a, b, c, d = string.byte(sample or '', 2, 5)
  return d and ((a * 256 + b) * 256 + c) * 256 + d
end
redis.call('DEL', KEYS[1])
local reply = {}
for number = 1, #ARGV / 4 do
  local key, at = KEYS[number + 1], number * 4 - 3
  local step, most, sample = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 3]
  local newest = redis.pcall('LINDEX', key, 0)
  if type(newest) == 'table' then
    reply[number] = -1
  else
    local now_s = second_of(sample)
    local last_s = second_of(newest)
    for _ = 1, most do
      if not last_s or last_s <= now_s then
        break
      end
      redis.call('LREM', key, 1, newest)
      newest = redis.call('LINDEX', key, 0)
      last_s = second_of(newest)
    end
    reply[number] = 0
    if not last_s or math.floor(last_s / step) < math.floor(now_s / step) then
      for _ = most + 1, redis.call('LPUSH', key, sample) do
        redis.call('RPOP', key)
      end
      redis.call('EXPIRE', key, ARGV[at + 2])
      reply[number] = 1
    end
  end
end
return reply
