--[[
  list_tasks: read a page of a queue's tasks in one state. Changes nothing.

  KEYS[1]  list or zset   structure of the state
  ARGV[1]  string  'list' (first = next to run / oldest started) or 'zset' (first = lowest score)
  ARGV[2]  int     tasks to skip
  ARGV[3]  int     tasks to read (at most 1000)
  ARGV[4]  string  prefix of task keys
  ARGV[5]  string  key of the lease set for active tasks, else ''
  ARGV[6]  int     total bytes of messages and results after which no further task is read
  ARGV[7]  string  '1' to read from the other end
  ARGV[8]  string  prefix of the queue's taskq-only keys for scheduled tasks, else ''
  ARGV[9]  int     largest message, and largest result, to read, see `_message` and `_fields`

  returns  number of tasks in the state, then per task: id, message, result, score, "<size> <limit>" of a result that was
           too large to store or to read, fence of its worker, time at which the worker received it (Unix ms), progress, time at
           which it became pending (Unix ns), what it waits for, see `_waiting`, beginning of the record of its last
           attempt, its generation, see `_generation` (each '' if missing)
]]
-- include _message
-- include _fields
-- include _waiting
local first, count = tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), 1000)
local is_reversed = ARGV[7] == '1'
local ids, scores, size = {}, {}, 0
if ARGV[1] == 'list' then
  size = redis.call('LLEN', KEYS[1])
  local page = is_reversed and redis.call('LRANGE', KEYS[1], first, first + count - 1)
    or redis.call('LRANGE', KEYS[1], -first - count, -first - 1)
  for i = 1, #page do
    local id = page[is_reversed and i or #page + 1 - i]
    ids[#ids + 1] = id
    scores[#scores + 1] = ARGV[5] ~= '' and redis.call('ZSCORE', ARGV[5], id) or ''
  end
else
  size = redis.call('ZCARD', KEYS[1])
  local page = redis.call(is_reversed and 'ZREVRANGE' or 'ZRANGE', KEYS[1], first, first + count - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    ids[#ids + 1] = page[i]
    scores[#scores + 1] = page[i + 1]
  end
end
local reply, bytes, most = { size }, 0, tonumber(ARGV[9])
for i, id in ipairs(ids) do
  local fields = fields_of(
    ARGV[4] .. id, most, most, 'taskq_owner', 'taskq_started', 'taskq_progress', 'pending_since', 'taskq_attempts',
    'taskq_steps', 'taskq_generation'
  )
  local message, result = fields[1] or '', fields[2] or ''
  reply[#reply + 1] = id
  reply[#reply + 1] = message
  reply[#reply + 1] = result
  reply[#reply + 1] = scores[i] or ''
  for field = 3, 7 do
    reply[#reply + 1] = fields[field] or ''
  end
  reply[#reply + 1] = ARGV[8] ~= '' and wait_of(ARGV[8], id, fields[9]) or ''
  local attempts = fields[8] or ''
  reply[#reply + 1] = string.sub(string.match(attempts, '^.*\n(.*)') or attempts, 1, 200)
  reply[#reply + 1] = fields[10] or fields[9] or ''
  bytes = bytes + #message + #result
  if bytes >= tonumber(ARGV[6]) then
    break
  end
end
return reply
