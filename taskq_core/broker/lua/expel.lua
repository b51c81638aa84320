--[[
  expel: move members of an aggregation set to quarantine, because their messages cannot be decoded. The stored bytes
  are not changed.

  KEYS[1]  zset    the set: id by the time the task joined its group (Unix s)
  KEYS[2]  zset    quarantine: id by time (Unix s)
  KEYS[3]  zset    aggregation sets: key by deadline (Unix s); a set without remaining members is removed from it
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of task keys
  ARGV[3]  string  prefix of quarantined hashes
  ARGV[4..]        ids (at most 200)

  returns  number of members moved to quarantine
]]
-- include _check
-- include _clock
local unique_prefix = string.sub(ARGV[2], 1, -3) .. 'unique:'
-- include _unique
local now_s = clock(ARGV[1])
check('ZCARD', KEYS[1], KEYS[2], KEYS[3])
local count = 0
for i = 4, #ARGV do
  local id = ARGV[i]
  if redis.call('ZREM', KEYS[1], id) == 1 and redis.call('EXISTS', ARGV[2] .. id) == 1 then
    release(redis.pcall('HGET', ARGV[2] .. id, 'unique_key'), id)
    redis.call('RENAME', ARGV[2] .. id, ARGV[3] .. id)
    redis.call('ZADD', KEYS[2], whole(now_s), id)
    count = count + 1
  end
end
if redis.call('ZCARD', KEYS[1]) == 0 then
  redis.call('ZREM', KEYS[3], KEYS[1])
end
return count
