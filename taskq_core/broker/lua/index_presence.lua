--[[
  index_presence: set the expiry of a server or scheduler in the index of all servers or schedulers. Remove index
  entries that expired over an hour ago.

  KEYS[1]  zset    members by expiry (Unix s)
  ARGV[1]  int     expiry (Unix s)
  ARGV[2]  string  member

  The first write is ZREM: after a ZREM, even a full Redis allows the later writes of this script.

  returns  1  the member is new   0  its expiry was changed
]]
local known = redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] - 3600)
return 1 - known
