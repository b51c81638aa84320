--[[
  forget_step: delete a stored result or failure of a step, a signal or the position of the loops of a task that is not
  running, so that the next run of the task repeats the step or the wait, or begins the loops again. If the task waits
  for a later signal of the same name, start the task, because the number of its wait has changed. A question is asked
  again, with a new number; a task that waits for its answer is started.

  KEYS[1]  hash    the task
  KEYS[2]  hash    record of its steps, see `_steps`
  KEYS[3]  list    pending tasks
  KEYS[4]  zset    scheduled: id by start (Unix s)
  KEYS[5]  list    wake tokens
  KEYS[6]  zset    open questions, see `_questions`
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  task id
  ARGV[3]  string  name of a step or of sub-tasks, 'iterate' for the position, or "<name>#<number>" of a signal
                   or a question
  ARGV[4]  string  prefix of the queue's keys
  ARGV[5]  string  prefix of the queue's taskq-only keys
  ARGV[6]  string  generation of the task, '' for any, see `_generation`

  returns  1  deleted   0  unknown field   missing  unknown task, or a later one with the same id   active  the task runs
]]
-- include _check
-- include _clock
-- include _place
-- include _wake
-- include _steps
-- include _resume
-- include _generation
-- include _questions
local _, now_ns, now_ms = clock(ARGV[1])
check('LLEN', KEYS[3], KEYS[5])
check('ZCARD', KEYS[4], KEYS[6])
local fields = redis.call('HMGET', KEYS[1], 'state', 'taskq_steps')
if not fields[1] or is_later(KEYS[1], ARGV[6]) then
  return 'missing'
elseif fields[1] == 'active' then
  return 'active'
elseif not fields[2] or redis.call('HGET', KEYS[2], 'of') ~= fields[2] then
  return 0
end
local deleted = redis.call('HDEL', KEYS[2], 's:' .. ARGV[3], 'a:' .. ARGV[3], 'k:' .. ARGV[3], 'p:' .. ARGV[3])
if redis.call('HDEL', KEYS[2], 'q:' .. ARGV[3], 'v:' .. ARGV[3], 'u:v:' .. ARGV[3]) > 0 then
  redis.call('ZREM', KEYS[6], question(ARGV[2], ARGV[3]))
  resume(ARGV[4], ARGV[5], now_ns, now_ms, ARGV[2], 'v:' .. ARGV[3])
  return 1
end
local name, number = string.match(ARGV[3], '^(.*)#(%d+)$')
local value = name and redis.call('HGET', KEYS[2], 'r:' .. ARGV[3])
if value then -- each later signal of this name gets the previous number, and its wait begins again
  local prefix, last = 'r:' .. name .. '#', tonumber(redis.call('HINCRBY', KEYS[2], 'n:' .. name, -1)) + 1
  for at = tonumber(number), last - 1 do
    redis.call('HSET', KEYS[2], prefix .. whole(at), redis.call('HGET', KEYS[2], prefix .. whole(at + 1)) or '0 ')
    redis.call('HDEL', KEYS[2], 'u:' .. prefix .. whole(at), 't:' .. name .. '#' .. whole(at))
  end
  for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do -- the choice between several signals is made again
    local choice = string.sub(field, 1, 2) == 'o:' and redis.call('HGET', KEYS[2], field) or ''
    local chosen, its = string.match(choice, '^%d+ (.*)#(%d+)$')
    if chosen == name and tonumber(its) >= tonumber(number) then
      redis.call('HDEL', KEYS[2], field, 'u:' .. field)
    end
  end
  redis.call('HDEL', KEYS[2], prefix .. whole(last), 'u:' .. prefix .. whole(last), 't:' .. name .. '#' .. whole(last))
  local json = string.match(value, '^%d+ (.+)$')
  if json then
    redis.call('HINCRBY', KEYS[2], 'signals', -1)
    redis.call('HINCRBY', KEYS[2], 'signal_bytes', -#json)
  end
  resume(ARGV[4], ARGV[5], now_ns, now_ms, ARGV[2], prefix .. whole(last + 1))
  deleted = deleted + 1
end
return math.min(1, deleted)
