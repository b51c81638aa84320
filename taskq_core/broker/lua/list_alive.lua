--[[
  list_alive: read a page of the servers or schedulers that are alive. Changes nothing; the script `index_presence`
  removes expired servers and schedulers.

  KEYS[1]  zset    members by expiry (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     number of members to skip
  ARGV[3]  int     maximum number of members to read

  returns  the members
]]
-- include _clock
return redis.call('ZRANGE', KEYS[1], whole(clock(ARGV[1])), '+inf', 'BYSCORE', 'LIMIT', ARGV[2], ARGV[3])
