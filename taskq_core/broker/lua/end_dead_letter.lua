--[[
  end_dead_letter: note that an archived task was told of, or is to be told of again later.

  KEYS[1]  zset    archived tasks to be told of: id by when that is due (Unix s)
  KEYS[2]  any     a key that never exists
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  task id
  ARGV[3]  int     until when it was the caller's (Unix s): one that was archived again since is left alone
  ARGV[4]  int     seconds until it is to be told of again, '' for never

  returns  1  noted   0  it was another's by now
]]
-- include _clock
local now_s = clock(ARGV[1])
if redis.call('ZSCORE', KEYS[1], ARGV[2]) ~= ARGV[3] then
  return 0
end
redis.call('DEL', KEYS[2]) -- accepted also over maxmemory, and with it the writes that follow
if ARGV[4] == '' then
  redis.call('ZREM', KEYS[1], ARGV[2])
else
  redis.call('ZADD', KEYS[1], whole(now_s + tonumber(ARGV[4])), ARGV[2])
end
return 1
