--[[
  list_held: scan a page of leases, and list the tasks that one worker holds. Reads only.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  string  cursor: '0' to begin, then the one that the previous call returned
  ARGV[4]  int     approximate number of leases to scan
  ARGV[5]  string  prefix of task keys

  A complete scan lists each task that the worker holds during the whole scan at least once.

  returns  the next cursor ('0' at the end), now (Unix ns as text), then per task the values that `list_expired` returns
]]
-- include _clock
-- include _fence
local _, now_ns = clock(ARGV[1])
local page = redis.call('ZSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local reply = { page[1], now_ns }
for i = 1, #page[2], 2 do
  local id, score = page[2][i], whole(tonumber(page[2][i + 1]))
  local fields = redis.pcall('HMGET', ARGV[5] .. id, 'msg', 'taskq_owner', 'taskq_started', 'taskq_begun')
  if worker_of(fields[2], score) == ARGV[2] then
    reply[#reply + 1] = id
    reply[#reply + 1] = score
    for field = 1, 4 do
      reply[#reply + 1] = fields[field] or ''
    end
  end
end
return reply
