--[[
  record_firing: add a firing to the history of a schedule entry, and remove the oldest firings beyond a maximum.

  KEYS[1]  zset    SchedulerEnqueueEvent bytes by time (Unix s)
  ARGV[1]  int     time of the firing (Unix s)
  ARGV[2]  string  SchedulerEnqueueEvent bytes
  ARGV[3]  int     maximum number of events
  ARGV[4]  int     seconds until the history expires, '' for no expiry

  Old firings are removed first: after this removal, even a full Redis allows the later writes of this script.

  returns  1  the firing is new   0  it was already in the history
]]
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -tonumber(ARGV[3]))
local new = redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
if ARGV[4] ~= '' then
  redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return new
