--[[
  change_task: change the start or the message of a waiting task, or both. A new message may come with a new unique
  lock.

  KEYS[1]  list    pending tasks
  KEYS[2]  zset    scheduled: id by start (Unix s)
  KEYS[3]  zset    retry: id by next attempt (Unix s)
  KEYS[4]  zset    archived: id by archiving time (Unix s)
  KEYS[5]  zset    completed: id by end of retention (Unix s)
  KEYS[6]  set     names of groups with members
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  task id
  ARGV[4]  string  new start: '=<Unix s>' or '+<ms from now>', '' to keep the present one
  ARGV[5]  string  message that the caller has read, '' to keep the message
  ARGV[6]  string  new message
  ARGV[7]  string  unique lock in the message that the caller has read, '' none
  ARGV[8]  string  unique lock in the new message, '' none
  ARGV[9]  string  generation of the task, '' for any, see `_generation`

  With a new start, pending and grouped tasks become scheduled, archived tasks become retry, and others keep their state.
  The lock is exchanged only while this task holds it, and keeps its remaining time. A repeated call finds the new
  message and only sets the start again.

  returns  'ok'; '' no such task, or a later one with the same id; 'lost' if the structure of its state does not contain it; 'copied' if it is the
           archived original of a copy; 'changed' if it has another message now; 'duplicate' if another task holds the new lock;
           otherwise its state, which does not allow the change
]]
-- include _check
-- include _clock
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _generation
-- include _copied
-- include _renew
-- include _forget_steps
-- include _withdraw
-- include _place
-- include _limits
-- include _wake
-- include _steps
local now_s, now_ns, now_ms = clock(ARGV[1])
local keys = structures(ARGV[2])
local id, moves = ARGV[3], ARGV[4] ~= ''
if moves then
  check('LLEN', KEYS[1])
  check('ZCARD', KEYS[2], KEYS[3], KEYS[4])
  check('SCARD', KEYS[6])
end
local key = ARGV[2] .. 't:' .. id
local fields = redis.pcall('HMGET', key, 'state', 'msg', 'group', 'taskq_copied', 'unique_key', 'taskq_unique', 'taskq_steps')
local state = fields[1]
local rewrites = ARGV[5] ~= '' and (fields[2] ~= ARGV[6] or ARGV[5] == ARGV[6])
if not state or not fields[2] or is_later(key, ARGV[9]) then
  return ''
elseif not moves and not rewrites then
  return 'ok' -- this call is a repeat: an earlier request has made the change
elseif is_copied(state, fields[2], fields[4]) then
  return 'copied'
elseif state == 'active' or state == 'completed' then
  return state
elseif not moves and state == 'aggregating' then
  local score = fields[3] and redis.pcall('ZSCORE', ARGV[2] .. 'g:' .. fields[3], id)
  if type(score) ~= 'string' then
    return state -- the task is in an aggregation set, whose members are being combined into one task
  end
end
local old, new, lock = ARGV[7], ARGV[8], fields[5]
local needs_new_lock = rewrites and new ~= '' and new ~= old
if rewrites and fields[2] ~= ARGV[5] then
  return 'changed'
elseif needs_new_lock and (moves or (is_lock(old) and redis.pcall('GET', old) == id)) and is_taken(new, id, ARGV[2] .. 't:') then
  return 'duplicate'
end
local limits, target
if moves then
  target = (state == 'retry' or state == 'archived') and 'retry' or 'scheduled'
  if state == target then
    if not redis.call('ZSCORE', keys[state], id) then
      return 'lost'
    end
  elseif not withdraw(keys, id, state, fields[3]) then
    return state == 'aggregating' and state or 'lost'
  end
  local value = tonumber(string.sub(ARGV[4], 2))
  local start_s = string.sub(ARGV[4], 1, 1) == '=' and value or due(now_ms, value)
  limits = limiter(ARGV[2], now_s, now_ns, now_ms)
  limits.release_permits(id, key)
  redis.call('ZADD', keys[target], whole(start_s), id)
  redis.call('HSET', key, 'state', target)
  redis.call('HDEL', key, 'pending_since')
  leave_group(key, fields[3], target)
  if fields[7] then
    keep_steps(ARGV[2], id, record_ttl(start_s, now_s))
  end
end
if rewrites then
  redis.call('HSET', key, 'msg', ARGV[6])
  if needs_new_lock then
    exchange(old, new, id)
    redis.call('HSET', key, 'unique_key', new)
    lock = new
  end
end
if moves then
  follow(fields[6], lock, id, target)
  limits.finish()
end
return 'ok'
