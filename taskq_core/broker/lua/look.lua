--[[
  look: read one task, and on request have its end or every change published on the queue's channel.

  KEYS[1]  hash    the task
  ARGV[1]  string  task id
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  int     1 to publish its end, 2 every change; an earlier request for more stays valid

  returns  nothing, or: state, message, result ('' none), score in the set of its state ('' none), its worker's fence, when
           it was handed to it (Unix ms), the records of its attempts, its progress, the rule of its unique lock, the limit
           its waiting line, size and limit of a result that was not stored (each '' if missing)
]]
local fields = redis.call(
  'HMGET',
  KEYS[1],
  'state',
  'msg',
  'result',
  'taskq_owner',
  'taskq_started',
  'taskq_attempts',
  'taskq_progress',
  'taskq_wait',
  'taskq_unique',
  'taskq_line',
  'taskq_oversized'
)
local state = fields[1]
if not state or not fields[2] then
  return false
end
local score = ''
if state == 'active' then
  score = redis.call('ZSCORE', ARGV[2] .. 'lease', ARGV[1]) or ''
elseif state ~= 'pending' and state ~= 'aggregating' then
  score = redis.call('ZSCORE', ARGV[2] .. state, ARGV[1]) or ''
end
if ARGV[3] > (fields[8] or '0') and state ~= 'completed' and state ~= 'archived' then
  redis.pcall('HSET', KEYS[1], 'taskq_wait', ARGV[3]) -- refused over maxmemory: the caller polls as well
end
return { state, fields[2], fields[3] or '', score, fields[4] or '', fields[5] or '', fields[6] or '', fields[7] or '', fields[9] or '', fields[10] or '', fields[11] or '' }
