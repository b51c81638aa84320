--[[
  pause: keep workers from taking tasks of a queue.

  KEYS[1]  string  present while the queue is paused; holds since when (Unix s)
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production

  returns  1  paused now   0  was paused already
]]
-- include _clock
local now_s = clock(ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('DEL', KEYS[1]) -- accepted also over maxmemory, and with it the write that follows
redis.call('SET', KEYS[1], whole(now_s))
return 1
