--[[
  list_held: look at some leases and list the tasks that one worker holds. Reads only.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  string  cursor: '0' to begin, then what the call before returned
  ARGV[4]  int     about how many leases to look at
  ARGV[5]  string  prefix of task keys

  A task that the worker holds all the while is listed by one of the calls until the cursor is '0' again, maybe twice.

  returns  the next cursor, now (Unix ns as text), then per task what `expired` returns
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
