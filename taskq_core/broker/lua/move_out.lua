--[[
  move_out: start to move tasks to another queue (step 1 of 3). Remove the tasks from the lists and sets of this queue,
  so that no worker takes them from this queue. The hashes of the tasks stay until the other queue has stored the tasks.

  KEYS[1]  list    pending tasks
  KEYS[2]  zset    scheduled
  KEYS[3]  zset    retry
  KEYS[4]  zset    archived
  KEYS[5]  zset    completed
  KEYS[6]  set     names of groups with members
  KEYS[7]  zset    tasks that are being moved: id by start of the move (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  token of this call, hexadecimal
  ARGV[4]  string  name of the other queue, '' to resume interrupted moves
  ARGV[5]  string  required state of the tasks, '' for any
  ARGV[6]  int     total bytes of hashes after which no further task is moved
  ARGV[7]  int     largest message, and largest result, of a task that may be moved
  ARGV[8]  string  generation of each task, '' for any, each followed by a comma; '' for any of all tasks
  ARGV[9..]        ids (at most 200)

  The field taskq_moving holds "<move>:<caller>:<score>:<name of the other queue>". At first, move and caller are both
  the token of this call. If a task is already moving to that queue, the move is resumed under its first name, by which
  the other queue recognizes the move. Only the last caller may finish the move. A repeated call changes nothing.

  The field taskq_letter marks an archived task that a dead-letter handler has to receive.

  returns  now (Unix s), then per task that was read: answer, name of its move, other queue, score ('' none), remaining
           time of its unique lock (ms, '' not held), number of the following values, fields and values of its hash.
           Answers: 'ok'; '' no such task, or a later one with the same id; 'large' its message or result is too large;
           'lost' it has no message, or the structure of its state does not contain it;
           'moving' it is being moved to a third queue, or its queue is being removed; 'steps' its steps are stored in
           this queue, where signals and sub-tasks of the task arrive; otherwise its state, from which
           it cannot be moved
]]
-- include _clock
-- include _lock
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _generation
-- include _withdraw
-- include _place
-- include _limits
local now_s, now_ns, now_ms = clock(ARGV[1])
local keys = structures(ARGV[2])
redis.call('SCARD', KEYS[6]) -- this and the next calls raise an error if a key has another type
redis.call('ZCARD', KEYS[7])

local target_of_all = ARGV[4]
local letters = string.sub(KEYS[7], 1, -7) .. 'letters'
local limits = limiter(ARGV[2], now_s, now_ns, now_ms)

local function is_large(key)
  for _, field in ipairs({ 'msg', 'result' }) do
    local size = redis.pcall('HSTRLEN', key, field)
    if type(size) == 'number' and size > tonumber(ARGV[7]) then
      return true
    end
  end
  return false
end

local function set_out(id, key, generation)
  if is_large(key) then
    return 'large'
  end
  local hash = redis.pcall('HGETALL', key)
  if hash.err or #hash == 0 or is_later(key, generation) then
    if target_of_all == '' then
      redis.call('ZREM', KEYS[7], id)
    end
    return ''
  end
  local field = {}
  for i = 1, #hash, 2 do
    field[hash[i]] = hash[i + 1]
  end
  local state, token, score, target = field.state, ARGV[3], '', target_of_all
  if not field.msg then
    return 'lost'
  elseif field.taskq_moving then
    if not redis.call('ZSCORE', KEYS[7], id) then
      return target_of_all == '' and '' or 'moving' -- the queue is being removed
    end
    token, score, target = string.match(field.taskq_moving, '^(%x+):%x+:([^:]*):(.*)$')
    if not token or (target_of_all ~= '' and target ~= target_of_all) then
      return 'moving'
    end
  elseif target_of_all == '' then
    redis.call('ZREM', KEYS[7], id) -- the move of this task has ended
    return ''
  elseif field.taskq_steps then
    return 'steps'
  elseif state == 'active' or (ARGV[5] ~= '' and state ~= ARGV[5]) then
    return state or ''
  else
    local set = state == 'aggregating' and field.group and ARGV[2] .. 'g:' .. field.group or keys[state]
    if state ~= 'pending' and set then
      local found = redis.pcall('ZSCORE', set, id)
      score = type(found) == 'string' and found or ''
    end
    if not withdraw(keys, id, state, field.group) then
      return 'lost'
    end
    limits.release_permits(id, key)
    if state == 'archived' and redis.pcall('ZREM', letters, id) == 1 then
      redis.call('HSET', key, 'taskq_letter', '1')
      hash[#hash + 1] = 'taskq_letter'
      hash[#hash + 1] = '1'
    end
    if score == limits.far and field.taskq_line then
      score = whole(now_s) -- the task waited for a limit of this queue, so it is due at once in the other queue
    end
  end
  redis.call('HSET', key, 'taskq_moving', token .. ':' .. ARGV[3] .. ':' .. score .. ':' .. target)
  redis.call('ZADD', KEYS[7], whole(now_s), id)
  local lock = field.unique_key or lock_of(field.msg)
  local left_ms = is_lock(lock) and redis.pcall('GET', lock) == id and redis.call('PTTL', lock) or ''
  return 'ok', token, target, score, left_ms, hash
end

local reply, bytes = { whole(now_s) }, 0
local generations = generations_in(ARGV[8])
for i = 9, #ARGV do
  local answer, token, target, score, left_ms, hash = set_out(ARGV[i], ARGV[2] .. 't:' .. ARGV[i], generations[i - 8])
  reply[#reply + 1] = answer
  reply[#reply + 1] = token or ''
  reply[#reply + 1] = target or ''
  reply[#reply + 1] = score or ''
  reply[#reply + 1] = left_ms or ''
  reply[#reply + 1] = hash and #hash or 0
  for _, word in ipairs(hash or {}) do
    reply[#reply + 1] = word
    bytes = bytes + #word
  end
  if bytes >= tonumber(ARGV[6]) then
    break
  end
end
limits.finish()
return reply
