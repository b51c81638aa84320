--[[
  list_alive: read which servers or schedulers are alive by an index. Those that are not are taken out when others announce
  themselves (index), so that a look changes nothing.

  KEYS[1]  zset    members by expiry (Unix s)
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  int     members to skip
  ARGV[3]  int     most members to read

  returns  members
]]
-- include _clock
return redis.call('ZRANGE', KEYS[1], whole(clock(ARGV[1])), '+inf', 'BYSCORE', 'LIMIT', ARGV[2], ARGV[3])
