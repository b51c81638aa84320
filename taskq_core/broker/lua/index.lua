--[[
  index: note in an index until when a server counts as alive, and take out those that ended over an hour before.

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
