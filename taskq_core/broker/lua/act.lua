--[[
  act: run, archive, delete or reschedule tasks that are not running, at the request of an operator.

  KEYS[1]  list    pending tasks
  KEYS[2]  zset    scheduled: id by start (Unix s)
  KEYS[3]  zset    retry: id by next attempt (Unix s)
  KEYS[4]  zset    archived: id by archiving time (Unix s)
  KEYS[5]  zset    completed: id by end of retention (Unix s)
  KEYS[6]  set     names of groups with members
  KEYS[7]  list    wake tokens
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  action, one of
                   'run', 'archive', 'delete'
                   'cancel'  archive, with a cancellation as the error
                   'wait'    reschedule: scheduled and retry tasks keep their state, archived tasks become retry, all
                             others become scheduled
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  string  channel for the ids of ended tasks
  ARGV[5]  int     seconds for which an archived task is kept
  ARGV[6]  int     maximum number of archived tasks
  ARGV[7]  string  required state of the tasks, '' for any
  ARGV[8]  string  new start for wait: '=<Unix s>' or '+<ms from now>'
  ARGV[9]  int     seconds after which a caller that moves an archived task no longer sends its copy
  ARGV[10] string  generation of each task, '' for any, each followed by a comma; '' for any of all tasks
  ARGV[11..]       task ids (at most 200, because each pending task is searched for in the whole list)

  The action 'run' ignores the limits of a task.

  returns  per task: 'ok'; '' no such task, or a later one with the same id; 'lost' if the structure of its state does not contain it; 'copied' if it
           is the archived original of a copy that may run (it can only be deleted, after the time in ARGV[9]); otherwise its state, which does not allow the action
]]
-- include _check
-- include _clock
local unique_prefix = ARGV[3] .. 'unique:'
-- include _unique
-- include _generation
-- include _copied
-- include _forget_steps
-- include _trim
-- include _place
-- include _wake
-- include _leave_active
-- include _lock
-- include _withdraw
-- include _erase
-- include _limits
-- include _steps
local now_s, now_ns, now_ms = clock(ARGV[1])
local action, wanted = ARGV[2], ARGV[7]
local keys = structures(ARGV[3])
keys.done = ARGV[4]
local limits = limiter(ARGV[3], now_s, now_ns, now_ms)
check('LLEN', KEYS[1], KEYS[7])
check('ZCARD', KEYS[2], KEYS[3], KEYS[4])
check('SCARD', KEYS[6])
local start_s
if action == 'wait' then
  local value = tonumber(string.sub(ARGV[8], 2))
  start_s = whole(string.sub(ARGV[8], 1, 1) == '=' and value or due(now_ms, value))
end
local refused = {
  run = { active = true, pending = true },
  archive = { active = true, archived = true },
  cancel = { active = true, archived = true, completed = true },
  delete = { active = true },
  wait = { active = true },
}

local function carry_out(id, generation)
  local key = ARGV[3] .. 't:' .. id
  local fields = redis.pcall(
    'HMGET', key, 'state', 'unique_key', 'group', 'taskq_wait', 'taskq_copied', 'taskq_priority', 'taskq_step', 'taskq_unique',
    'taskq_steps'
  )
  local state = fields[1]
  if not state or is_later(key, generation) then
    return ''
  elseif refused[action][state] or (wanted ~= '' and state ~= wanted) then
    return state
  elseif fields[5] and is_copied(state, redis.call('HGET', key, 'msg'), fields[5]) then
    local last_s = string.match(fields[5], '^%x+:%x*:%d+:(%d+):')
    if action ~= 'delete' or (last_s and now_s <= tonumber(last_s) + tonumber(ARGV[9])) then
      return 'copied'
    end
  end
  if fields[9] and action ~= 'delete' then
    local is_archived = action == 'archive' or action == 'cancel'
    keep_steps(ARGV[3], id, is_archived and ARGV[5] or record_ttl(tonumber(start_s or now_s), now_s))
  end
  if action == 'wait' and (state == 'scheduled' or state == 'retry') then
    if not redis.call('ZSCORE', keys[state], id) then
      return 'lost'
    end
    limits.release_permits(id, key)
    redis.call('ZADD', keys[state], start_s, id)
    leave_group(key, fields[3], state)
    return 'ok'
  end
  if not withdraw(keys, id, state, fields[3]) then
    return 'lost'
  end
  if action == 'run' then
    limits.pass(id, key)
  else
    limits.release_permits(id, key)
  end
  if action == 'run' then
    redis.call('HSET', key, 'state', 'pending')
    redis.call('HDEL', key, 'pending_since') -- remove the time at which the task last became pending
    leave_group(key, fields[3], 'pending')
    join(KEYS[1], KEYS[7], ARGV[3] .. 't:', now_ms, id, band_of(fields[6], false))
    if fields[7] then
      -- list the step as started again, so that the workflow learns of its end
      redis.call('ZADD', string.sub(KEYS[7], 1, -5) .. 'wf-steps', whole(now_s), fields[7])
    end
    follow(fields[8], fields[2], id, 'pending')
  elseif action == 'archive' or action == 'cancel' then
    redis.call('ZADD', KEYS[4], whole(now_s), id)
    if action == 'cancel' then -- append field 7 (error, 16 bytes), which replaces the same field inside the message
      redis.call('HSET', key, 'msg', redis.call('HGET', key, 'msg') .. '\58\16context canceled')
    end
    redis.call('HSET', key, 'state', 'archived')
    leave_group(key, fields[3], 'archived')
    follow(fields[8], fields[2], id, 'archived')
    announce(keys, fields[4], id)
  elseif action == 'wait' then
    local target = state == 'archived' and 'retry' or 'scheduled'
    redis.call('ZADD', keys[target], start_s, id)
    redis.call('HSET', key, 'state', target)
    redis.call('HDEL', key, 'pending_since')
    leave_group(key, fields[3], target)
    follow(fields[8], fields[2], id, target)
  else
    erase(keys, id, key, state, fields[2], fields[4], fields[9])
  end
  return 'ok'
end

local answers, acted = {}, 0
local generations = generations_in(ARGV[10])
for i = 11, #ARGV do
  local answer = carry_out(ARGV[i], generations[i - 10])
  acted = acted + (answer == 'ok' and 1 or 0)
  answers[#answers + 1] = answer
end
limits.finish()
if acted > 0 and action == 'run' then
  wake(KEYS[7])
elseif acted > 0 and (action == 'archive' or action == 'cancel') then
  trim(KEYS[4], ARGV[3] .. 't:', now_s - tonumber(ARGV[5]), tonumber(ARGV[6]))
end
return answers
