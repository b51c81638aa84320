--[[
  list_leases: list tasks whose lease expired and whose grace period has ended, or list the tasks that one worker holds.
  Changes nothing.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of task keys
  ARGV[3]  int     maximum number of tasks to list; of a worker: approximate number of leases to scan
  ARGV[4]  int     grace period after the expiry (s); '' to list the tasks of a worker
  ARGV[5]  string  token of the worker
  ARGV[6]  string  cursor: '0' to begin, then the cursor that the previous call returned

  A complete scan lists each task that the worker holds during the whole scan at least once.

  returns  now (Unix ns as text), the next cursor ('0' at the end), then per task: id, lease expiry (Unix s as text),
           message, fence of its worker, time at which the worker received it (Unix ms), mark of the started run (each ''
           if missing)
]]
-- include _clock
-- include _fence
local now_s, now_ns = clock(ARGV[1])
local is_scan = ARGV[4] == ''
local cursor, found
if is_scan then
  cursor, found = unpack(redis.call('ZSCAN', KEYS[1], ARGV[6], 'COUNT', ARGV[3]))
else
  local cutoff = whole(now_s - tonumber(ARGV[4]))
  cursor, found = '0', redis.call('ZRANGE', KEYS[1], '-inf', cutoff, 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
end
local reply = { now_ns, cursor }
for i = 1, #found, 2 do
  local id, score = found[i], is_scan and whole(tonumber(found[i + 1])) or found[i + 1]
  local fields = redis.pcall('HMGET', ARGV[2] .. id, 'msg', 'taskq_owner', 'taskq_started', 'taskq_begun')
  if not is_scan or worker_of(fields[2], score) == ARGV[5] then
    reply[#reply + 1] = { id, score, fields[1] or '', fields[2] or '', fields[3] or '', fields[4] or '' }
  end
end
return reply
