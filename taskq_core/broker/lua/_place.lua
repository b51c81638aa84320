-- Priority inside a queue. All workers, including Go's, take tasks from the right end of the list `pending`, and more
-- urgent tasks are further right. The zset `urgent` contains the tasks of bands 1 to 9 in the same order, so that the
-- place of a new task is found quickly. Workers do not read `urgent`. The functions of this file remove ids of tasks
-- that are no longer pending from `urgent`.

local URGENT_MAX, PATIENT_MS, URGENT_S, BAND = 10000, 60000, 604800, 1e12

local function waits(task_prefix, id)
  local fields = redis.pcall('HMGET', task_prefix .. id, 'state', 'taskq_priority')
  return fields[1] == 'pending' and fields[2] -- a task without a priority is a newer task with the same id
end

local function push_right(pending, ids)
  for last = #ids, 1, -200 do
    local chunk = {}
    for i = last, math.max(1, last - 199), -1 do
      chunk[#chunk + 1] = ids[i]
    end
    redis.call('RPUSH', pending, unpack(chunk))
  end
end

-- place: insert new pending tasks of one band into the list: after the tasks of the same and of higher bands, before
-- all other tasks. At most one batch of new tasks overtakes a task that has waited for more than a minute. The first of
-- `ids` runs first. If `urgent` contains ten thousand ids or is a key of another type, the tasks go to the end of the
-- list. The caller has already made a write after which even a full Redis allows the writes of this function.
local function place(pending, wake_key, task_prefix, now_ms, ids, band)
  local urgent = string.sub(wake_key, 1, -5) .. 'urgent'
  local kind = redis.call('TYPE', urgent)
  kind = kind.ok or kind
  if kind == 'zset' then
    for _ = 0, math.ceil(#ids / 100) do
      local gone = {}
      for _, id in ipairs(redis.call('ZRANGE', urgent, 0, 99)) do
        if waits(task_prefix, id) then
          break
        end
        gone[#gone + 1] = id
      end
      if #gone == 0 then
        break
      end
      redis.call('ZREM', urgent, unpack(gone))
    end
  end
  if (kind ~= 'zset' and kind ~= 'none') or redis.call('ZCARD', urgent) + #ids > URGENT_MAX then
    for i = 1, #ids, 200 do
      redis.call('LPUSH', pending, unpack(ids, i, math.min(i + 199, #ids)))
    end
    return
  end

  local ends = (10 - band) * BAND -- scores of this band are lower than `ends`, those of higher bands even lower
  local pivot, at
  for _ = 1, 20 do
    pivot = redis.call('ZRANGE', urgent, '(' .. whole(ends), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
    if not pivot then
      break
    end
    at = waits(task_prefix, pivot) and redis.call('LPOS', pending, pivot, 'RANK', -1, 'MAXLEN', 2 * URGENT_MAX)
    if at then
      break
    end
    redis.call('ZREM', urgent, pivot)
    pivot = nil
  end
  local length = redis.call('LLEN', pending)
  local ahead = pivot and at and length - at or 0
  local last = redis.call(
    'ZRANGE', urgent, '(' .. whole(ends), whole(ends - BAND), 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES'
  )[2]
  local score = last and tonumber(last) + 1 or ends - BAND
  local overtaken = ahead < length and redis.call('LINDEX', pending, length - ahead - 1)
  local fields = overtaken and redis.pcall('HMGET', task_prefix .. overtaken, 'pending_since', 'taskq_priority') or {}
  local since = fields[1] and tonumber(string.sub(fields[1], 1, -7))
  if since and now_ms - since > PATIENT_MS then
    redis.call('HSET', task_prefix .. overtaken, 'taskq_priority', fields[2] or '0:0')
    redis.call('ZADD', urgent, whole(score), overtaken)
    pivot, ahead, score = overtaken, ahead + 1, score + 1
  end

  if ahead > 200 and #ids * (length - ahead) < 30 * ahead then
    for _, id in ipairs(ids) do
      redis.call('LINSERT', pending, 'BEFORE', pivot, id)
      pivot = id
    end
  else
    local above = ahead > 0 and redis.call('RPOP', pending, ahead) or {}
    push_right(pending, ids)
    push_right(pending, above)
  end
  local scored = {}
  for i, id in ipairs(ids) do
    scored[#scored + 1] = whole(score + i - 1)
    scored[#scored + 1] = id
  end
  for i = 1, #scored, 400 do
    redis.call('ZADD', urgent, unpack(scored, i, math.min(i + 399, #scored)))
  end
  redis.call('EXPIRE', urgent, URGENT_S)
end

-- join: insert one new pending task into the list by its band. Band 0 is the lowest.
local function join(pending, wake_key, task_prefix, now_ms, id, band)
  if band > 0 then
    place(pending, wake_key, task_prefix, now_ms, { id }, band)
  else
    redis.call('LPUSH', pending, id)
  end
end

-- band_of: return the band of a task from its priority, '<band>:<band of its retries>'. Return 0 for a task without a
-- priority.
local function band_of(priority, is_retry)
  local band, retry = string.match(type(priority) == 'string' and priority or '', '^(%d):(%d)$')
  return tonumber(is_retry and retry or band or 0)
end

-- place_all: insert new pending tasks of all bands, starting with the highest band.
local function place_all(pending, wake_key, task_prefix, now_ms, bands)
  for band = 9, 1, -1 do
    if bands[band] then
      place(pending, wake_key, task_prefix, now_ms, bands[band], band)
    end
  end
end
