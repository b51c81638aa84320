--[[
  record_firing: note a firing in the history of a periodic entry, of which the newest are kept.

  KEYS[1]  zset    SchedulerEnqueueEvent bytes by time (Unix s)
  ARGV[1]  int     time of the firing (Unix s)
  ARGV[2]  string  SchedulerEnqueueEvent bytes
  ARGV[3]  int     most events
  ARGV[4]  int     seconds the history is kept from now, empty to keep it without expiry

  The removal comes first: Redis accepts it also over maxmemory, and with it the writes that follow.

  returns  1  new   0  known before
]]
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -tonumber(ARGV[3]))
local new = redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
if ARGV[4] ~= '' then
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return new
