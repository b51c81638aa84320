--[[
  list_expired: list tasks whose lease expired and whose grace period has ended. Reads only.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     grace period after the expiry (s)
  ARGV[3]  int     maximum number of tasks to list
  ARGV[4]  string  prefix of task keys

  returns  now (Unix ns as text), then per task: id, lease expiry (Unix s as text), message, fence of its worker, time at
           which the worker received it (Unix ms), mark of the started run (each '' if missing)
]]
-- include _clock
local now_s, now_ns = clock(ARGV[1])
local cutoff = whole(now_s - tonumber(ARGV[2]))
local found = redis.call('ZRANGE', KEYS[1], '-inf', cutoff, 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
local reply = { now_ns }
for i = 1, #found, 2 do
  local fields = redis.pcall('HMGET', ARGV[4] .. found[i], 'msg', 'taskq_owner', 'taskq_started', 'taskq_begun')
  reply[#reply + 1] = found[i]
  reply[#reply + 1] = found[i + 1]
  for field = 1, 4 do
    reply[#reply + 1] = fields[field] or '' -- nil if the key is not a hash
  end
end
return reply
