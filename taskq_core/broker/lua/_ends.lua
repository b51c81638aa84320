-- Shared steps of the scripts that end runs of a worker's tasks. The id at a position is ids[before + position]; they
-- were handed out oldest first, and most end in that order.

-- owned: find which tasks this worker still owns in the runs it names. `runs` is "<run>x<tasks>," for each sequence of
-- tasks of one run. Returns the keys of the tasks by position (false where the run is over), by position the fields that
-- need more work, the number of tasks owned, and whether a success of all asks only to delete them. Most tasks have the
-- four fields of any running task, and counting those costs Redis less than reading others by name.
local function owned(lease, token, runs, task_prefix, ids, before, size)
  local scores = redis.call('ZMSCORE', lease, unpack(ids, before + 1, before + size))
  local task_keys, marks, mine, is_plain = {}, {}, 0, true
  local next_run = string.gmatch(runs, '(%d+)x(%d+),')
  local owner_of_run, last_of_run = nil, 0
  local fence_score, fence
  for position = 1, size do
    local score, key, owner = scores[position], false, nil
    if position > last_of_run then
      local run, tasks = next_run()
      owner_of_run, last_of_run = token .. '.' .. run .. ':', last_of_run + tonumber(tasks)
      fence_score = nil
    end
    if score then
      if score ~= fence_score then
        fence_score, fence = score, owner_of_run .. score
      end
      key = task_prefix .. ids[before + position]
      local count = redis.pcall('HLEN', key)
      if count == 4 then
        owner = redis.call('HGET', key, 'taskq_owner')
      else
        local fields = redis.pcall('HMGET', key, 'taskq_owner', 'taskq_wait', 'taskq_step', 'taskq_permit', 'taskq_begun')
        owner, marks[position] = fields[1], fields
        is_plain = is_plain and count == 5 and fields[5] -- the mark of a start needs no work
      end
    end
    if key and owner == fence then
      mine = mine + 1
      task_keys[position] = key
    else
      task_keys[position] = false
    end
  end
  return task_keys, marks, mine, is_plain
end

-- are_these: whether a part of the active list holds just these tasks: from the youngest to the oldest, as they end where
-- all are quick, or in another order.
local function are_these(there, ids, before, size)
  local position = #there == size and size or -1
  while position > 0 and there[size + 1 - position] == ids[before + position] do
    position = position - 1
  end
  if position < 1 then
    return position == 0
  end
  local left = {}
  for i = 1, size do
    left[ids[before + i]] = true
  end
  for _, id in ipairs(there) do
    if not left[id] then
      return false
    end
    left[id] = nil
  end
  return true
end

-- stand_together: the end of the active list at which these tasks are next to each other, so that one command removes them:
-- 'old' if the worker runs no others, 'young' if others take long. Else nil, and the oldest ids.
local function stand_together(active, ids, before, size)
  local oldest = redis.call('LRANGE', active, -size, -1)
  if are_these(oldest, ids, before, size) then
    return 'old'
  elseif are_these(redis.call('LRANGE', active, 0, size - 1), ids, before, size) then
    return 'young'
  end
  return nil, oldest
end

-- scannable: how many tasks may be looked for in the active list by one call.
local function scannable(active)
  return math.max(1, math.floor(2000000 / math.max(1, redis.call('LLEN', active))))
end

-- leave_one_by_one: take tasks out of the active list, each searched from its nearer end: the youngest are
-- at the left end. From the last to the first, so that requeued tasks keep their order. `is_young` says of
-- a position whether its task is young if it is not among the `oldest`. A task that is named twice is taken out once, and its
-- other key is false from then on. This comes before every other write: Redis accepts it also over maxmemory, and with it
-- the writes that follow.
local function leave_one_by_one(active, ids, before, size, task_keys, oldest, is_young)
  local is_old, is_seen = {}, {}
  for _, id in ipairs(oldest) do
    is_old[id] = true
  end
  for position = size, 1, -1 do
    local id = ids[before + position]
    if task_keys[position] and is_seen[id] then
      task_keys[position] = false
    elseif task_keys[position] then
      is_seen[id] = true
      redis.call('LREM', active, not is_old[id] and is_young(position) and 1 or -1, id)
    end
  end
end

-- leave_together: take tasks out of the active list that are next to each other. This comes before every other write as well.
local function leave_together(active, ends, size)
  if ends == 'old' then
    redis.call('LTRIM', active, 0, -size - 1)
  else
    redis.call('LTRIM', active, size, -1)
  end
end

-- delete_done: delete finished tasks of this worker that need no notification, and count them.
local function delete_done(lease, prefix, task_keys, ids, before, size, now_s, counters_s)
  redis.call('DEL', unpack(task_keys, 1, size))
  redis.call('ZREM', lease, unpack(ids, before + 1, before + size))
  count(prefix, 'processed', size, now_s, counters_s)
end
