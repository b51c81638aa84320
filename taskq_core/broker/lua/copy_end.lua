--[[
  copy_end: delete archived tasks whose copies the other queue has stored, and put tasks back whose copies it has
  refused (step 3 of 3 of a move).

  KEYS[1]  list    pending tasks
  KEYS[2]  zset    scheduled
  KEYS[3]  zset    retry
  KEYS[4]  zset    archived
  KEYS[5]  zset    completed
  KEYS[6]  set     names of groups with members
  KEYS[7]  list    wake tokens
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  channel for the ids of ended tasks
  ARGV[4]  string  token of the caller, see `copy_out`
  ARGV[5]  int     number of bytes of the error text that `copy_out` appends to a message
  ARGV[6..]        per task: 'd' (delete it) or 'b' (put it back into its old state, a pending task at the end of the
                   queue), followed by the name of its copy; then its id

  A task is skipped if another copy or none is recorded. It is not put back if another caller may still send the copy.

  returns  now (Unix s), number of deleted tasks and of tasks that are back
]]
-- include _check
-- include _clock
-- include _copied
-- include _wake
-- include _place
-- include _limits
-- include _forget_steps
-- include _leave_active
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _lock
-- include _withdraw
-- include _erase
local now_s, now_ns, now_ms = clock(ARGV[1])
local keys = structures(ARGV[2])
keys.done = ARGV[3]
check('LLEN', KEYS[1], KEYS[7])
check('ZCARD', KEYS[2], KEYS[3], KEYS[4])
check('SCARD', KEYS[6])

local function put_back(id, key, field, size, state, score)
  local set = state == 'aggregating' and field.group and ARGV[2] .. 'g:' .. field.group or keys[state]
  redis.call('HSET', key, 'msg', string.sub(field.msg, 1, tonumber(size)), 'state', state)
  redis.call('HDEL', key, 'taskq_copied')
  if state ~= 'pending' and set and type(redis.pcall('ZADD', set, tonumber(score) and score or whole(now_s), id)) == 'number' then
    if state == 'aggregating' then
      redis.call('SADD', KEYS[6], field.group)
    end
  else
    redis.call('HSET', key, 'state', 'pending')
    if not field.taskq_limit or limiter(ARGV[2], now_s, now_ns, now_ms).enter(id, key, field.taskq_limit) then
      join(KEYS[1], KEYS[7], ARGV[2] .. 't:', now_ms, id, band_of(field.taskq_priority, false))
      wake(KEYS[7])
    end
  end
  follow(field.taskq_unique, field.unique_key, id, state)
end

local names = {
  'taskq_copied', 'state', 'msg', 'group', 'unique_key', 'taskq_unique', 'taskq_wait', 'taskq_limit', 'taskq_priority',
  'taskq_step',
}
local ended = 0
for i = 6, #ARGV, 2 do
  local deletes, copy, id = string.sub(ARGV[i], 1, 1) == 'd', string.sub(ARGV[i], 2), ARGV[i + 1]
  local key = ARGV[2] .. 't:' .. id
  local values, field = redis.pcall('HMGET', key, unpack(names)), {}
  for at, name in ipairs(names) do
    field[name] = values[at]
  end
  local of, caller, size, state, score =
    string.match(field.taskq_copied or '', '^(%x+):(%x*):%d+:%d+:(%d+):(%l+):([^:]*):')
  local is_original = of == copy and is_copied(field.state, field.msg, field.taskq_copied)
  local may_end = deletes or (caller == ARGV[4] and #(field.msg or '') == size + tonumber(ARGV[5]))
  if is_original and may_end and withdraw(keys, id, 'archived') then
    ended = ended + 1
    if deletes then
      erase(keys, id, key, state, field.unique_key, field.taskq_wait)
      if field.taskq_step then -- the other queue now lists the step as started
        redis.pcall('ZREM', string.sub(KEYS[7], 1, -5) .. 'wf-steps', field.taskq_step)
      end
    else
      put_back(id, key, field, size, state, score)
    end
  end
end
return { whole(now_s), ended }
