-- Storing a new task. Needs `_clock`, `_limits`, `_marks` and `_unique`.

-- meet: treat the task that holds the lock of a new one, for which `is_held` is true. `word` is that of the lock, `start_s`
-- 0 to start now. Returns 'd' refused, 'x' not changed, 'u' changed: with 'r' it gets the new message, and the new
-- start if there is one; with 'm' the new start alone. Only a task that waits is changed, and it keeps its priority.
local function meet(keys, now, holder, message, start, start_s, marks, word, group, limit)
  local key = keys.prefix .. 't:' .. holder
  if word.conflict == 'e' then
    return 'x'
  elseif word.conflict ~= 'r' and word.conflict ~= 'm' then
    return 'd'
  end
  local fields = redis.pcall('HMGET', key, 'state', 'group', 'taskq_moving', 'msg', 'taskq_permit', 'taskq_limit')
  local state, from_s = fields[1], start_s
  if fields[3] or not fields[4] then
    return 'd'
  elseif fields[5] and (word.conflict == 'm' or start ~= '' or (fields[6] or '') ~= limit) then
    return 'd' -- it has a place in the line of a limit, or its permit
  elseif state == 'aggregating' then -- it stays in its group, unless that is being turned into one task
    local score = fields[2] and redis.pcall('ZSCORE', keys.prefix .. 'g:' .. fields[2], holder)
    if type(score) ~= 'string' or word.conflict ~= 'r' or start ~= '' or group ~= fields[2] then
      return 'd'
    end
  elseif state == 'scheduled' or state == 'retry' then
    local score = redis.pcall('ZSCORE', keys.prefix .. state, holder)
    if type(score) ~= 'string' then
      return 'd'
    end
    if start == '' and score ~= '253402300799' then -- the score of what waits for a limit and was to start at once
      from_s = tonumber(score)
    end
    if word.conflict == 'm' or start ~= '' then
      redis.call('ZADD', keys.prefix .. state, whole(math.max(start_s, now.s)), holder)
    end
  elseif state ~= 'pending' then
    return 'd'
  elseif start_s * 1000 > now.ms then
    if redis.call('LREM', keys.prefix .. 'pending', -1, holder) == 0 then
      return 'd'
    end
    redis.call('ZADD', keys.scheduled, whole(start_s), holder)
    redis.call('HSET', key, 'state', 'scheduled')
    redis.call('HDEL', key, 'pending_since')
  end
  if word.conflict == 'r' then
    -- The message names the id it was made with. If a field occurs twice, the last one counts.
    local size, bytes = #holder, ''
    while size > 127 do
      bytes = bytes .. string.char(size % 128 + 128)
      size = math.floor(size / 128)
    end
    message = marked(message, marks, math.max(from_s * 1000, now.ms))
    redis.call('HSET', key, 'msg', message .. '\26' .. bytes .. string.char(size) .. holder)
    redis.call('HSET', key, 'taskq_unique', word.rule, 'unique_key', word.lock)
    if limit ~= '' then
      redis.call('HSET', key, 'taskq_limit', limit)
    elseif fields[6] then
      redis.call('HDEL', key, 'taskq_limit')
    end
  end
  if word.ttl_s > 0 then
    redis.call('EXPIRE', word.lock, whole(word.ttl_s))
  else
    redis.call('SET', word.lock, holder)
  end
  return 'u'
end

-- store: put a new task where it belongs: scheduled with a start ahead, else in its group, else pending. The caller has
-- checked the types of the keys, and pushes the id to pending itself: it may have many.
-- `start` is '' now, '=<Unix s>' or '+<ms from now>', and may have marks behind '|': see _marks. `is_full` refuses what
-- would be pending, but no sooner than what its id or its lock refuses. `lock_word` is the seconds of the lock, and
-- behind them for one with a rule (_unique): its until, what to do if it is held (d refuse, e keep the holder,
-- r replace it, m move its start), and the names of its arguments behind a colon. `limit` names its limits, '' none: it
-- may have to wait. Returns the code of the task, whether it is to be pushed, its band, whether it counts as pending, as
-- one does that waits for a limit, and who holds its lock.
local function store(keys, now, id, message, start, lock, lock_word, group, limit, is_full)
  local key = keys.prefix .. 't:' .. id
  local start_s, marks = 0, ''
  local bar = string.find(start, '|', 1, true)
  if bar then
    marks = string.sub(start, bar + 1)
    start = string.sub(start, 1, bar - 1)
  end
  if start ~= '' then
    local value = tonumber(string.sub(start, 2))
    start_s = string.sub(start, 1, 1) == '=' and value or (value > 0 and due(now.ms, value) or 0)
  end
  local scheduled = start_s * 1000 > now.ms
  local word
  if lock ~= '' then
    local lock_s, till, conflict, names = string.match(lock_word, '^(-?%d+)(%l?)(%l?)(.*)$')
    local ttl_s = tonumber(lock_s) + (scheduled and math.floor((start_s * 1000 - now.ms) / 1000) or 0)
    ttl_s = math.max(1, math.min(ttl_s, 10000000000)) -- never refused half-way
    if till ~= '' and tonumber(lock_s) == 0 then
      ttl_s = 0
    end
    word = { lock = lock, ttl_s = ttl_s, conflict = conflict, rule = till ~= '' and till .. lock_s .. names }
    local holder = redis.pcall('GET', lock)
    if type(holder) == 'table' then
      local kind = redis.call('TYPE', lock)
      kind = kind.ok or kind
      if kind == 'string' or kind == 'none' then
        redis.call('GET', lock) -- raises what Redis said
      end
      return 'd', false, 0, false, ''
    elseif holder and is_held(lock, keys.prefix .. 't:' .. holder) then
      return meet(keys, now, holder, message, start, start_s, marks, word, group, limit), false, 0, false, holder
    end
  end
  if redis.call('EXISTS', key) == 1 then
    return '0'
  end
  if is_full and not scheduled and group == '' then
    return 'f'
  end
  if marks ~= '' then
    message = marked(message, marks, scheduled and start_s * 1000 or now.ms)
  end
  if scheduled then
    redis.call('HSET', key, 'msg', message, 'state', 'scheduled')
    redis.call('ZADD', keys.scheduled, whole(start_s), id)
    if group ~= '' then
      -- Not `group`: Go's forwarder would put the task in its group without listing the group, where nothing runs it.
      redis.call('HSET', key, 'taskq_group', group)
    end
  elseif group ~= '' then
    redis.call('HSET', key, 'msg', message, 'state', 'aggregating', 'group', group)
    redis.call('ZADD', keys.prefix .. 'g:' .. group, whole(now.s), id)
    redis.call('SADD', keys.groups, group)
  else
    redis.call('HSET', key, 'msg', message, 'state', 'pending', 'pending_since', now.ns)
  end
  local priority = string.match(marks, 'p(%d:%d);')
  if priority then
    redis.call('HSET', key, 'taskq_priority', priority)
  end
  local counts = not scheduled and group == ''
  local is_ready = counts
  if limit ~= '' then
    redis.call('HSET', key, 'taskq_limit', limit)
    if is_ready then
      keys.limits = keys.limits or limiter(keys.prefix, now.s, now.ns, now.ms)
      is_ready = keys.limits.enter(id, key, limit)
    end
  end
  if word then
    if word.ttl_s > 0 then
      redis.call('SET', lock, id, 'EX', whole(word.ttl_s))
    else
      redis.call('SET', lock, id)
    end
    redis.call('HSET', key, 'unique_key', lock)
    if word.rule then
      redis.call('HSET', key, 'taskq_unique', word.rule)
    end
  end
  return '1', is_ready, tonumber(string.sub(priority or '0', 1, 1)), counts
end

-- named: the suffix of an answer: the holders of the locks, each as "<length>:<id>".
local function named(holders)
  return #holders > 0 and '\n' .. table.concat(holders) or ''
end
