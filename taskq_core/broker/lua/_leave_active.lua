-- Functions that move a task out of the active list. The caller has checked that the worker owns the task and that the
-- target sets have the right types. So none of these functions can fail half-way.

-- leave: remove a task from the active list, and remove its lease. The search in the list starts at the oldest task.
-- The first write is an LREM: after an LREM, even a full Redis allows the later writes of the script.
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

-- keep: add a task to the list or set of its new state, and set further fields of the task.
local function keep(set, score, id, task_key, message, state, ...)
  redis.call('ZADD', set, score, id)
  redis.call('HSET', task_key, 'msg', message, 'state', state, ...)
  redis.call('HDEL', task_key, 'taskq_owner', 'taskq_started', 'taskq_begun', 'taskq_cancel')
end
