--[[
  read_task: read one task. If requested, ask workers to publish the end or each change of the task on the queue's
  channel, and give the task a generation if it has none.

  KEYS[1]  hash    the task
  ARGV[1]  string  task id
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  int     0 to publish nothing, 1 its end, 2 each change; an earlier request for 2 stays in force
  ARGV[4]  string  prefix of the queue's taskq-only keys
  ARGV[5]  int     largest message to read, see `_message`
  ARGV[6]  int     largest result to read, see `_fields`
  ARGV[7]  int     1 to give the task a generation, else 0

  returns  nothing if the task does not exist. Otherwise state, message, result, score in the set of its state, fence of
           its worker, time at which the worker received it (Unix ms), records of its attempts, progress, rule of its
           unique lock, limit for which it waits, "<size> <limit>" of a result that was too large to store or read, what it
           waits for, see `_waiting`, its generation, see `_generation` (each '' if missing)
]]
-- include _message
-- include _fields
-- include _waiting
-- include _generation
local fields = fields_of(
  KEYS[1],
  tonumber(ARGV[5]),
  tonumber(ARGV[6]),
  'state',
  'taskq_owner',
  'taskq_started',
  'taskq_attempts',
  'taskq_progress',
  'taskq_wait',
  'taskq_unique',
  'taskq_line',
  'taskq_steps',
  'taskq_generation'
)
if fields.err then
  return fields
end
local state = fields[4]
if not state or not fields[1] then
  return false
end
local score, wait = '', ''
if state == 'active' then
  score = redis.call('ZSCORE', ARGV[2] .. 'lease', ARGV[1]) or ''
elseif state ~= 'pending' and state ~= 'aggregating' then
  score = redis.call('ZSCORE', ARGV[2] .. state, ARGV[1]) or ''
end
if state == 'scheduled' then
  wait = wait_of(ARGV[4], ARGV[1], fields[12])
end
if ARGV[3] > (fields[9] or '0') and state ~= 'completed' and state ~= 'archived' then
  -- pcall, because a full Redis refuses this write. The caller also polls, so it needs no message
  redis.pcall('HSET', KEYS[1], 'taskq_wait', ARGV[3])
end
local generation = fields[13] or fields[12] or ARGV[7] == '1' and generation_of(KEYS[1]) or ''
return {
  fields[4], fields[1], fields[2] or '', score, fields[5] or '', fields[6] or '', fields[7] or '', fields[8] or '',
  fields[10] or '', fields[11] or '', fields[3] or '', wait, generation
}
