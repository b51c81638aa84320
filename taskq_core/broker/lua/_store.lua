-- Functions that store a new task. Needs the files `_clock`, `_held`, `_limits` and `_marks`.

-- meet: a new task needs a unique lock that another task, the holder, holds. Apply the lock word of the new task to the
-- holder. `word` is the lock word (see `store`), `start_s` the new start (0 for now). With 'r' the holder gets the new
-- message, and the new start if there is one. With 'm' the holder gets only the new start. Only a waiting holder is
-- changed, and it keeps its priority. Return 'd' if the new task is refused, 'x' if the holder was not changed, 'u' if
-- the holder was changed.
local function meet(keys, now, holder, message, start, start_s, marks, word, group, limit)
  local key = keys.prefix .. 't:' .. holder
  if word.conflict == 'e' then
    return 'x'
  elseif word.conflict ~= 'r' and word.conflict ~= 'm' then
    return 'd'
  end
  local fields = redis.pcall('HMGET', key, 'state', 'group', 'msg', 'taskq_permit', 'taskq_limit', 'taskq_steps')
  local state, from_s = fields[1], start_s
  if not fields[3] or fields[6] then
    return 'd' -- the holder has no message, or has stored steps of its arguments
  elseif fields[4] and (word.conflict == 'm' or start ~= '' or (fields[5] or '') ~= limit) then
    return 'd' -- the holder waits for a limit or holds a permit of a limit
  elseif state == 'aggregating' then -- change a holder in a group, but not in an aggregation set
    local score = fields[2] and redis.pcall('ZSCORE', keys.prefix .. 'g:' .. fields[2], holder)
    if type(score) ~= 'string' or word.conflict ~= 'r' or start ~= '' or group ~= fields[2] then
      return 'd'
    end
  elseif state == 'scheduled' or state == 'retry' then
    local score = redis.pcall('ZSCORE', keys.prefix .. state, holder)
    if type(score) ~= 'string' then
      return 'd'
    end
    if start == '' and score ~= far_s then -- the score of a task that waits for a limit
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
    -- The new message contains the id of the new task. In protobuf, the last of two fields with the same number counts.
    message = marked(message, marks, math.max(from_s * 1000, now.ms))
    redis.call('HSET', key, 'msg', message .. '\26' .. varint(#holder) .. holder)
    redis.call('HSET', key, 'taskq_unique', word.rule, 'unique_key', word.lock)
    if limit ~= '' then
      redis.call('HSET', key, 'taskq_limit', limit)
    elseif fields[5] then
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

-- store: store a new task as scheduled if its start is in the future, otherwise in its group, otherwise as pending. The
-- caller has checked the types of the keys, and pushes ids of pending tasks itself, all at once.
--   start      '' now, '=<Unix s>' or '+<ms from now>', optionally followed by '|' and marks, see `_marks`
--   is_full    true to refuse a task that would become pending. A taken id or lock is reported first
--   lock_word  seconds of the lock. For a lock with a rule (see `_held`) follow: the letter `until` of the rule; what to
--              do if the lock is held (d refuse, e leave the holder unchanged, r replace its message, m change its start);
--              and, after a colon, the names of the arguments that count
--   limit      limits of the task, '' none; the task may have to wait for them
-- Returns the code of the task (see `enqueue`), whether the caller has to push it, its band, whether it counts as pending
-- (as a task that waits for a limit does), and the holder of its lock.
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
    -- SET accepts only this range, and the script must not fail half-way
    ttl_s = math.max(1, math.min(ttl_s, 10000000000))
    if till ~= '' and tonumber(lock_s) == 0 then
      ttl_s = 0
    end
    word = { lock = lock, ttl_s = ttl_s, conflict = conflict, rule = till ~= '' and till .. lock_s .. names }
    local holder = redis.pcall('GET', lock)
    if type(holder) == 'table' then
      local kind = redis.call('TYPE', lock)
      kind = kind.ok or kind
      if kind == 'string' or kind == 'none' then
        redis.call('GET', lock) -- raises Redis's error
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
  local priority, generation = string.match(marks, 'p(%d:%d);'), string.match(marks, 'g(%x+);')
  if priority then
    redis.call('HSET', key, 'taskq_priority', priority)
  end
  if generation then
    redis.call('HSET', key, 'taskq_generation', generation)
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

-- named: return the suffix of an answer that contains the holders of the locks, each as "<length>:<id>".
local function named(holders)
  return #holders > 0 and '\n' .. table.concat(holders) or ''
end
