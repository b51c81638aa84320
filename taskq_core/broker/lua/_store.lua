-- store: put a new task where it belongs: scheduled with a start ahead, else in its group, else pending. The caller has
-- checked the types of the keys, and pushes the id to pending itself: it may have many.
-- `start` is '' now, '=<Unix s>' or '+<ms from now>', and may have marks behind '|': see _marks. `is_full` refuses what
-- would be pending, but no sooner than what its id or its lock refuses. `limit` names its limits, '' none: it may have to
-- wait. Returns the code of the task, whether it is to be pushed, its band, and whether it counts as pending, as one does
-- that waits for a limit. Needs `_limits` and `_marks`.
local function store(keys, now, id, message, start, lock, lock_s, group, limit, is_full)
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
  if lock ~= '' and redis.call('EXISTS', lock) == 1 then
    return 'd'
  elseif redis.call('EXISTS', key) == 1 then
    return '0'
  end
  local scheduled = start_s * 1000 > now.ms
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
      redis.call('HSET', key, 'group', group) -- by which a forwarder, Go's too, finds its group
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
  if lock ~= '' then
    local ttl_s = tonumber(lock_s) + (scheduled and math.floor((start_s * 1000 - now.ms) / 1000) or 0)
    redis.call('SET', lock, id, 'EX', whole(math.max(1, math.min(ttl_s, 10000000000)))) -- never refused half-way
    redis.call('HSET', key, 'unique_key', lock)
  end
  return '1', is_ready, tonumber(string.sub(priority or '0', 1, 1)), counts
end
