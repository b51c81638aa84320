--[[
  index: note in an index until when a server counts as alive, and take some out of it that ended over an hour before.

  KEYS[1]  zset    members by expiry (Unix s)
  ARGV[1]  int     expiry (Unix s)
  ARGV[2]  string  member

  ZREM comes first: Redis accepts it also over maxmemory, and with it the write that follows.

  returns  1  new   0  known before
]]
local known = redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1] - 3600, 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], member)
end
return 1 - known
