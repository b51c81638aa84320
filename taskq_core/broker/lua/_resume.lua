-- is_awaited: return whether a task that waits for `waiting` waits for `wait`, which may be one of several signals.
local function is_awaited(waiting, wait)
  local several, signal = string.match(waiting, '^o:(.*)$'), string.match(wait, '^r:(.*)$')
  return waiting == wait or several and signal and string.find(' | ' .. several, ' | ' .. signal .. ' | ', 1, true)
end

-- event_ms: return the time of a signal, or of the end of sub-tasks, for the record (Unix ms). It is after the request to
-- cancel the task, even in the same millisecond or after Redis's clock went back. So the event ends no wait of the task.
local function event_ms(record, now_ms)
  local cancelled_ms = tonumber(string.match(redis.call('HGET', record, 'cancel') or '', '^%d+') or '')
  return whole(cancelled_ms and math.max(now_ms, cancelled_ms + 1) or now_ms)
end

-- resume: make a scheduled task pending if it waits for `wait`. The limits of the task are applied when a worker
-- dequeues it. Needs the files `_place` and `_wake`.
local function resume(prefix, own, now_ns, now_ms, id, wait)
  local key, record = prefix .. 't:' .. id, own .. 'steps:' .. id
  local fields = redis.pcall('HMGET', key, 'state', 'taskq_priority', 'taskq_line')
  local waiting = string.match(redis.call('HGET', record, 'waiting') or '', ' (.*)$') or ''
  if fields[1] ~= 'scheduled' or fields[3] or not is_awaited(waiting, wait) then
    return
  elseif redis.call('ZREM', prefix .. 'scheduled', id) == 1 then
    redis.call('HDEL', record, 'waiting')
    redis.call('HSET', record, 'by', wait)
    redis.call('HSET', key, 'state', 'pending', 'pending_since', now_ns)
    join(prefix .. 'pending', own .. 'wake', prefix .. 't:', now_ms, id, band_of(fields[2], false))
    wake(own .. 'wake')
  end
end
