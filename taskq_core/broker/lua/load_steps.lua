--[[
  load_steps: read the steps record of a running task. Create the record if the task has none.

  KEYS[1]  hash    the task
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  hash    record of its steps, see `_steps`
  KEYS[4]  stream  values that the task emitted
  KEYS[5]  string  key that never exists
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  "<token of the worker>.<run>"
  ARGV[3]  string  task id
  ARGV[4]  int     1 if links of the run contain its fence as the generation of the task, else 0

  returns  0  this worker no longer owns the run   1  the record is lost; otherwise the time (Unix ms), and the fields of
           the record with their values
]]
-- include _clock
-- include _steps
local _, now_ns, now_ms = clock(ARGV[1])
local score = redis.call('ZSCORE', KEYS[2], ARGV[3])
if not score or redis.pcall('HGET', KEYS[1], 'taskq_owner') ~= ARGV[2] .. ':' .. score then
  return 0
end
redis.call('DEL', KEYS[5]) -- comes first: after a DEL, even a full Redis allows the writes below
if not open_record(KEYS[1], KEYS[3], KEYS[4], now_ns) then
  return 1
end
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[3], 'g:' .. ARGV[2], '1')
end
local attempt, run = string.match(redis.call('HGET', KEYS[3], 'try') or '0 ', '^(%d+) (.*)$')
if run ~= ARGV[2] then -- otherwise this request is a repeat
  if run ~= 'w' then
    attempt = whole(tonumber(attempt) + 1)
    redis.call('HDEL', KEYS[3], 'x', 'by')
  end
  redis.call('HSET', KEYS[3], 'try', attempt .. ' ' .. ARGV[2])
end
local waiting = string.match(redis.call('HGET', KEYS[3], 'waiting') or '', ' (.*)$')
if waiting then -- the wait is over: its time has passed, or a user ran the task
  local since = string.match(redis.call('HGET', KEYS[3], 'u:' .. waiting) or '', ' (%d+)$') or whole(now_ms)
  redis.call('HSET', KEYS[3], 'u:' .. waiting, whole(now_ms) .. ' ' .. since)
  redis.call('HDEL', KEYS[3], 'waiting')
end
return { now_ms, redis.call('HGETALL', KEYS[3]) }
