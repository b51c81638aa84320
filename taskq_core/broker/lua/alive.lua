--[[
  alive: read which servers or schedulers are alive by an index, and take some that are not out of it.

  KEYS[1]  zset    members by expiry (Unix s)
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  int     members to skip
  ARGV[3]  int     most members to read

  returns  members
]]
-- include _clock
local now_s = clock(ARGV[1])
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', whole(now_s - 1), 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], member)
end
return redis.call('ZRANGE', KEYS[1], whole(now_s), '+inf', 'BYSCORE', 'LIMIT', ARGV[2], ARGV[3])
