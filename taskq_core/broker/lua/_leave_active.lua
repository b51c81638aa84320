-- Functions that move a task out of the active list. The caller has checked that its worker owns the task, and that the
-- target sets have the right types, so nothing here can fail half-way.

-- leave: remove the id from the active list, searching from the oldest end, and remove its lease.
-- LREM comes first: Redis allows it over maxmemory, and then also allows the script's later writes.
local function leave(keys, id)
  redis.call('LREM', keys.active, -1, id)
  redis.call('ZREM', keys.lease, id)
end

-- announce: publish the end of a task if a client waits for it (field taskq_wait).
local function announce(keys, waited, id)
  if waited then
    redis.call('PUBLISH', keys.done, id)
  end
end

-- announce_change: publish a change of a task if a client follows every change (field taskq_wait is 2).
local function announce_change(keys, waited, id)
  if waited == '2' then
    redis.call('PUBLISH', keys.done, id)
  end
end

-- keep: add a task to the structure of its new state, and set further fields. The cursor of a completed task is deleted.
local function keep(set, score, id, task_key, message, state, ...)
  redis.call('ZADD', set, score, id)
  redis.call('HSET', task_key, 'msg', message, 'state', state, ...)
  redis.call(
    'HDEL', task_key, 'taskq_owner', 'taskq_started', 'taskq_begun', 'taskq_cancel',
    state == 'completed' and 'taskq_cursor' or 'taskq_started'
  )
end
