-- is_awaited: return whether a task that waits for `waiting` waits for `wait`, which may be one of several signals.
local function is_awaited(waiting, wait)
  local several, signal = string.match(waiting, '^o:(.*)$'), string.match(wait, '^r:(.*)$')
  return waiting == wait or several and signal and string.find(' | ' .. several, ' | ' .. signal .. ' | ', 1, true)
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
