-- Moving a task out of `active`. The caller has checked that the move is rightful; nothing here can fail half-way:
-- the target sets were checked for their type before the first write.

-- leave: take the id off the active list, searched from its oldest end, and its lease.
-- LREM first: Redis accepts it also over maxmemory, and with it the writes that follow.
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

-- keep: put a task into the structure of its new state, with further fields and values. The cursor is deleted if it
-- is completed.
local function keep(set, score, id, task_key, message, state, ...)
  redis.call('ZADD', set, score, id)
  redis.call('HSET', task_key, 'msg', message, 'state', state, ...)
  redis.call(
    'HDEL', task_key, 'taskq_owner', 'taskq_started', 'taskq_begun', 'taskq_cancel',
    state == 'completed' and 'taskq_cursor' or 'taskq_started'
  )
end
