--[[
  pause: pause a queue, so that workers take no tasks from it.

  KEYS[1]  string  present while the queue is paused; contains the start of the pause (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production

  returns  1  paused now   0  it was already paused
]]
-- include _clock
local now_s = clock(ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('DEL', KEYS[1]) -- comes first: after a DEL, even a full Redis allows the writes below
redis.call('SET', KEYS[1], whole(now_s))
return 1
