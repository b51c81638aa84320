--[[
  index_presence: set the time at which a server expires in an index, and remove servers that expired over an hour ago.

  KEYS[1]  zset    members by expiry (Unix s)
  ARGV[1]  int     expiry (Unix s)
  ARGV[2]  string  member

  ZREM comes first: Redis accepts it also over maxmemory, and with it the write that follows.

  returns  1  new   0  known before
]]
local known = redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] - 3600)
return 1 - known
