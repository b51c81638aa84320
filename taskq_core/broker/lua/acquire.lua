--[[
  acquire: take a permit of a semaphore. A task calls this script before code that only a limited number of tasks may
  run at the same time.

  KEYS[1]  zset    holders by the time until which they hold their permit (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     number of permits
  ARGV[3]  string  holder
  ARGV[4]  string  end of the hold: '=<Unix s>' or '+<ms from now>'

  A holder keeps its permit until the end of the second in its score. A caller that already holds a permit keeps it with
  the new end, so a call whose answer was lost can be sent again. The first write is ZREM: after a ZREM, even a full
  Redis allows the later writes of this script. At most 200 expired holders are removed per call.

  returns  1  taken   0  all permits are held
]]
-- include _clock
local now_s, _, now_ms = clock(ARGV[1])
local lapsed = redis.call('ZRANGE', KEYS[1], '-inf', whole(now_s - 1), 'BYSCORE', 'LIMIT', 0, 200)
if #lapsed > 0 then
  redis.call('ZREM', KEYS[1], unpack(lapsed))
end
local score = redis.call('ZSCORE', KEYS[1], ARGV[3])
local is_held = score and tonumber(score) >= now_s
if not is_held and redis.call('ZCOUNT', KEYS[1], whole(now_s), '+inf') >= tonumber(ARGV[2]) then
  return 0
end
local value = tonumber(string.sub(ARGV[4], 2))
local until_s = string.sub(ARGV[4], 1, 1) == '=' and value or due(now_ms, value)
redis.call('ZREM', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[1], whole(until_s), ARGV[3])
return 1
