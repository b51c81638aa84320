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
  ARGV[7]  int     largest message to read, see `_message`
  ARGV[8]  int     total bytes of messages after which no further expired lease is listed

  A complete scan lists each task that the worker holds during the whole scan at least once.

  returns  now (Unix ns as text), the next cursor ('0' at the end; of expired leases '1' if more may follow), then per task: id, lease expiry (Unix s as text),
           message, fence of its worker, time at which the worker received it (Unix ms), mark of the started run (each ''
           if missing)
]]
-- include _clock
-- include _fence
-- include _message
local now_s, now_ns = clock(ARGV[1])
local is_scan = ARGV[4] == ''
local cursor, found
if is_scan then
  cursor, found = unpack(redis.call('ZSCAN', KEYS[1], ARGV[6], 'COUNT', ARGV[3]))
else
  local cutoff = whole(now_s - tonumber(ARGV[4]))
  cursor, found = '0', redis.call('ZRANGE', KEYS[1], '-inf', cutoff, 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
end
local reply, bytes = { now_ns, cursor }, 0
if not is_scan and #found == 2 * tonumber(ARGV[3]) then
  reply[2] = '1'
end
for i = 1, #found, 2 do
  local id, score = found[i], is_scan and whole(tonumber(found[i + 1])) or found[i + 1]
  local fields = redis.pcall('HMGET', ARGV[2] .. id, 'taskq_owner', 'taskq_started', 'taskq_begun')
  if not is_scan or worker_of(fields[1], score) == ARGV[5] then
    local message = message_of(ARGV[2] .. id, tonumber(ARGV[7])) or ''
    reply[#reply + 1] = { id, score, message, fields[1] or '', fields[2] or '', fields[3] or '' }
    bytes = bytes + #message
    if not is_scan and bytes >= tonumber(ARGV[8]) then
      reply[2] = '1'
      break
    end
  end
end
return reply
