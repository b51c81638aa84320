--[[
  copy_out: archive tasks that are about to be copied to another queue, and record the copy in each of them (step 1 of
  3 of a move).

  KEYS[1]  list    pending tasks
  KEYS[2]  zset    scheduled
  KEYS[3]  zset    retry
  KEYS[4]  zset    archived: id by archiving time (Unix s)
  KEYS[5]  zset    completed
  KEYS[6]  set     names of groups with members
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  token of this call, hexadecimal
  ARGV[4]  string  name of the other queue
  ARGV[5]  string  required state of the tasks, '' for any
  ARGV[6]  int     total bytes of hashes after which no further task is read
  ARGV[7]  int     largest message of a task that may be copied
  ARGV[8]  int     seconds after which a recorded copy is not continued, because its receipt may have expired
  ARGV[9]  int     seconds after which an earlier caller no longer sends the copy
  ARGV[10] string  protobuf field with the error text of the archived tasks
  ARGV[11] int     deadline of this request by Redis's clock (Unix ms). A later request would archive tasks that have
                   been put back since
  ARGV[12] string  generation of each task, '' for any, each followed by a comma; '' for any of all tasks
  ARGV[13..]       ids (at most 200)

  The field taskq_copied holds "<copy>:<caller>:<first>:<last>:<size>:<state>:<score>:<other queue>": the name of the
  copy, by which the other queue recognizes it; the call that may put the task back, '' none; the times of the first and
  the last call (Unix s); the size of the message without the error text; and the state and the score before. At first, copy and caller are
  both the token of this call. If a copy to the same queue is recorded, it is continued. A repeated call changes nothing.

  returns  now (Unix s), then per task that was read: answer, name of the copy, state and score before ('' none),
           remaining time of its unique lock (ms, '' not held), number of the following values, fields and values of its
           hash. Answers: 'ok'; '' no such task, or a later one with the same id; 'large' its message is too large;
           'lost' it has no message, or the structure of its state does not contain it; 'copied' a copy to another queue
           is recorded, or the record is damaged or too old; 'steps' its steps are stored in this queue, where signals and
           sub-tasks of the task arrive; otherwise its state, from which it cannot be moved
]]
-- include _check
-- include _clock
-- include _lock
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _generation
-- include _late
-- include _copied
-- include _withdraw
-- include _place
-- include _limits
local now_s, now_ns, now_ms = clock(ARGV[1])
local late = lateness(ARGV[11], now_ms)
if late then
  return late
end
local keys = structures(ARGV[2])
check('LLEN', KEYS[1])
check('ZCARD', KEYS[4])
check('SCARD', KEYS[6])
local limits = limiter(ARGV[2], now_s, now_ns, now_ms)

-- begin: archive a task. Return its state and its score, or nil and a refusal.
local function begin(id, key, field)
  local state = field.state
  if field.taskq_steps then
    return nil, 'steps'
  elseif state == 'active' or state == 'completed' then
    return nil, state
  end
  local set = state == 'aggregating' and field.group and ARGV[2] .. 'g:' .. field.group or keys[state]
  local score = state ~= 'pending' and set and redis.pcall('ZSCORE', set, id)
  score = type(score) == 'string' and score or ''
  if not withdraw(keys, id, state, field.group) then
    return nil, 'lost'
  elseif score == far_s and field.taskq_line then
    state, score = 'pending', '' -- the task waited for a limit
  end
  limits.release_permits(id, key)
  redis.call('ZADD', KEYS[4], state == 'archived' and score or whole(now_s), id)
  redis.call('HSET', key, 'msg', field.msg .. ARGV[10], 'state', 'archived')
  return state, score
end

local function set_out(id, key, generation)
  local size = redis.pcall('HSTRLEN', key, 'msg')
  if type(size) == 'number' and size > tonumber(ARGV[7]) then
    return 'large'
  end
  local hash = redis.pcall('HGETALL', key)
  if hash.err or #hash == 0 or is_later(key, generation) then
    return ''
  end
  local field, place = {}, {}
  for i = 1, #hash, 2 do
    field[hash[i]], place[hash[i]] = hash[i + 1], i + 1
  end
  if not field.msg then
    return 'lost'
  elseif ARGV[5] ~= '' and field.state ~= ARGV[5] then
    return field.state or ''
  end
  local copy, caller, first, state, score = ARGV[3], ARGV[3], whole(now_s), nil, nil
  if is_copied(field.state, field.msg, field.taskq_copied) then
    local last, to
    copy, caller, first, last, size, state, score, to =
      string.match(field.taskq_copied, '^(%x+):(%x*):(%d+):(%d+):(%d+):(%l+):([^:]*):(.*)$')
    if not copy or to ~= ARGV[4] or #field.msg ~= size + #ARGV[10] or now_s > tonumber(first) + tonumber(ARGV[8]) then
      return 'copied'
    elseif not redis.call('ZSCORE', KEYS[4], id) then
      return 'lost' -- for example because its queue is being removed
    elseif caller ~= ARGV[3] then -- no call may put the task back while an earlier one may send the copy
      caller = now_s > tonumber(last) + tonumber(ARGV[9]) and ARGV[3] or ''
    end
    hash[place.msg] = string.sub(field.msg, 1, tonumber(size))
  else
    state, score = begin(id, key, field)
    if not state then
      return score
    end
  end
  local record = { copy, caller, first, whole(now_s), whole(tonumber(size)), state, score, ARGV[4] }
  redis.call('HSET', key, 'taskq_copied', table.concat(record, ':'))
  local lock = field.unique_key or lock_of(field.msg)
  local left_ms = is_lock(lock) and redis.pcall('GET', lock) == id and redis.call('PTTL', lock) or ''
  return 'ok', copy, state, score, left_ms, hash
end

local reply, bytes = { whole(now_s) }, 0
local generations = generations_in(ARGV[12])
for i = 13, #ARGV do
  local answer, copy, state, score, left_ms, hash = set_out(ARGV[i], ARGV[2] .. 't:' .. ARGV[i], generations[i - 12])
  reply[#reply + 1] = answer
  reply[#reply + 1] = copy or ''
  reply[#reply + 1] = state or ''
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
