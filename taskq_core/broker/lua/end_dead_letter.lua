--[[
  end_dead_letter: record that a dead-letter handler has received an archived task, or schedule another attempt to pass
  the task to the handler.

  KEYS[1]  zset    archived tasks to handle: id by due time (Unix s)
  KEYS[2]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  task id
  ARGV[3]  int     end of the caller's claim (Unix s). A task that was archived again in the meantime is not changed
  ARGV[4]  int     seconds until the next attempt, '' if the handler has received it

  returns  1  recorded   0  another caller has claimed it in the meantime
]]
-- include _clock
local now_s = clock(ARGV[1])
if redis.call('ZSCORE', KEYS[1], ARGV[2]) ~= ARGV[3] then
  return 0
end
redis.call('DEL', KEYS[2]) -- comes first: after a DEL, even a full Redis allows the writes below
if ARGV[4] == '' then
  redis.call('ZREM', KEYS[1], ARGV[2])
else
  redis.call('ZADD', KEYS[1], whole(now_s + tonumber(ARGV[4])), ARGV[2])
end
return 1
