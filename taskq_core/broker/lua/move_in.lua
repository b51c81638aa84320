--[[
  move_in: store tasks that come from another queue in the lists and sets of their states (step 2 of 3 of a move).

  KEYS[1]  list    pending tasks
  KEYS[2]  zset    scheduled
  KEYS[3]  zset    retry
  KEYS[4]  zset    archived
  KEYS[5]  zset    completed
  KEYS[6]  set     names of groups with members
  KEYS[7]  list    wake tokens
  KEYS[8]  zset    receipts: "<move>:<id>" by end of retention (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     deadline (Unix s), after which another caller may have resumed and finished the move
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  int     retention of a receipt (s)
  ARGV[5..]        per task: name of its move, id, score ('' none), unique lock to take ('' none), ms to hold the lock
                   (-1 without end), number of the following values, fields and values of its hash, including state

  A receipt shows a repeated call that the task was stored here, even if it has ended in the meantime. A receipt that
  begins with 'x' shows that the task was refused, and may be back in its old queue. Other tasks are still stored.

  returns  'late' after the deadline, else one character per task:  1  stored here   d  unique lock held by another task
             0  id taken, or the structure of its state is a key of another type
]]
-- include _check
-- include _clock
-- include _place
local unique_prefix = ARGV[3] .. 'unique:'
-- include _unique
-- include _wake
-- include _withdraw
-- include _limits
local now_s, now_ns, now_ms = clock(ARGV[1])
if now_s > tonumber(ARGV[2]) then
  return 'late'
end
local keys = structures(ARGV[3])
check('LLEN', KEYS[1], KEYS[7])
check('ZCARD', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[8])
check('SCARD', KEYS[6])
local codes, ready, i = {}, false, 5
while i <= #ARGV do
  local receipt, id, score, lock = ARGV[i] .. ':' .. ARGV[i + 1], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  lock = is_lock(lock) and lock or ''
  local words = tonumber(ARGV[i + 5])
  local key = ARGV[3] .. 't:' .. id
  local field = {}
  for word = i + 6, i + 5 + words, 2 do
    field[ARGV[word]] = ARGV[word + 1]
  end
  local members = field.state == 'aggregating' and field.group and ARGV[3] .. 'g:' .. field.group
  local set = members or keys[field.state]
  local code = '1'
  if redis.call('ZSCORE', KEYS[8], receipt) then
    code = '1'
  elseif redis.call('ZSCORE', KEYS[8], 'x' .. receipt) or redis.call('EXISTS', key) == 1 then
    code = '0'
  elseif field.state ~= 'pending' and not (set and type(redis.pcall('ZCARD', set)) == 'number') then
    code = '0'
  elseif lock ~= '' and is_taken(lock, id, ARGV[3] .. 't:') then
    code = 'd'
  else
    for word = i + 6, i + 5 + words, 200 do -- in parts, because Lua limits the number of arguments of a call
      redis.call('HSET', key, unpack(ARGV, word, math.min(word + 199, i + 5 + words)))
    end
    if field.state == 'pending' then
      local limits = field.taskq_limit and limiter(ARGV[3], now_s, now_ns, now_ms)
      if not limits or limits.enter(id, key, field.taskq_limit) then
        join(KEYS[1], KEYS[7], ARGV[3] .. 't:', now_ms, id, band_of(field.taskq_priority, false))
        ready = true
      end
    else
      redis.call('ZADD', set, tonumber(score) and score or whole(now_s), id)
    end
    if members then
      redis.call('SADD', KEYS[6], field.group)
    end
    if field.taskq_letter then
      redis.call('HDEL', key, 'taskq_letter')
      redis.pcall('ZADD', string.sub(KEYS[7], 1, -5) .. 'letters', whole(now_s), id)
    end
    if field.taskq_step then
      redis.call('ZADD', string.sub(KEYS[7], 1, -5) .. 'wf-steps', whole(now_s), field.taskq_step)
    end
    if lock ~= '' and tonumber(ARGV[i + 4]) > 0 then
      redis.call('SET', lock, id, 'PX', ARGV[i + 4])
    elseif lock ~= '' and ARGV[i + 4] == '-1' then
      redis.call('SET', lock, id)
    end
    redis.call('ZADD', KEYS[8], whole(now_s + tonumber(ARGV[4])), receipt)
  end
  if code ~= '1' then
    redis.call('ZADD', KEYS[8], whole(now_s + tonumber(ARGV[4])), 'x' .. receipt)
  end
  codes[#codes + 1] = code
  i = i + 6 + words
end
if ready then
  wake(KEYS[7])
end
for _, receipt in ipairs(redis.call('ZRANGE', KEYS[8], '-inf', whole(now_s), 'BYSCORE', 'LIMIT', 0, 200)) do
  redis.call('ZREM', KEYS[8], receipt)
end
redis.call('EXPIRE', KEYS[8], ARGV[4])
return table.concat(codes)
