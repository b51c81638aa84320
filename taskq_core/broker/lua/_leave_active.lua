-- Moving a task out of `active`. The caller has checked that the move is rightful; nothing here can fail half-way:
-- the target sets were checked for their type before the first write.

-- leave: take the id off the active list, looked for from the end where the oldest stand, and its lease.
-- LREM first: Redis accepts it also over maxmemory, and with it the writes that follow.
local function leave(keys, id)
  redis.call('LREM', keys.active, -1, id)
  redis.call('ZREM', keys.lease, id)
end

-- announce: tell those who wait for the outcome (field taskq_wait) that the task has ended.
local function announce(keys, waited, id)
  if waited then
    redis.call('PUBLISH', keys.done, id)
  end
end

-- tell: tell those who follow every change of a task (field taskq_wait is 2) that there was one.
local function tell(keys, waited, id)
  if waited == '2' then
    redis.call('PUBLISH', keys.done, id)
  end
end

-- keep: put a task where its new state says, with further fields and values. Where it would go on is of no use to one that
-- is completed.
local function keep(set, score, id, task_key, message, state, ...)
  redis.call('ZADD', set, score, id)
  redis.call('HSET', task_key, 'msg', message, 'state', state, ...)
  redis.call(
    'HDEL', task_key, 'taskq_owner', 'taskq_started', 'taskq_begun', 'taskq_cancel',
    state == 'completed' and 'taskq_cursor' or 'taskq_started'
  )
end
