-- Functions for scripts that settle tasks, that is, record how runs of tasks ended. The parameter `ids` of these
-- functions is an array. Its first `before` entries are other values, and ids of tasks follow. So the task at position
-- 1 is ids[before + 1].

-- owned: find the tasks that this worker still owns. `runs` is "<run>x<number of tasks>," for each sequence of tasks
-- with the same run number. Return four values: the key of each task by position (false if the worker no longer owns
-- the run); by position, optional fields of the tasks that have such fields; the number of owned tasks; and whether it
-- is enough to delete each task after a success. Most tasks have only the four fields of every running task, and
-- counting fields (HLEN) costs Redis less than reading optional fields by name.
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
        local fields = redis.pcall(
          'HMGET', key, 'taskq_owner', 'taskq_wait', 'taskq_step', 'taskq_permit', 'taskq_begun', 'taskq_steps'
        )
        owner, marks[position] = fields[1], fields
        is_plain = is_plain and count == 5 and fields[5] -- the fifth field, a mark of the started run, needs no work
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

-- has_exactly: return whether a part of the active list contains exactly these tasks, in any order. The usual order is
-- compared first: tasks start oldest first, most of them end in the same order, and the list begins with the youngest
-- task.
local function has_exactly(there, ids, before, size)
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

-- common_end: return 'old' or 'young' if the oldest or the youngest entries of the active list are exactly these tasks,
-- so that one command can remove all of them. Otherwise return nil and the oldest ids of the list.
local function common_end(active, ids, before, size)
  local oldest = redis.call('LRANGE', active, -size, -1)
  if has_exactly(oldest, ids, before, size) then
    return 'old'
  elseif has_exactly(redis.call('LRANGE', active, 0, size - 1), ids, before, size) then
    return 'young'
  end
  return nil, oldest
end

-- scannable: return the maximum number of tasks that one call may search for in the active list.
local function scannable(active)
  return math.max(1, math.floor(2000000 / math.max(1, redis.call('LLEN', active))))
end

-- leave_one_by_one: remove tasks from the active list one by one. The search for a task starts at the nearer end of the
-- list; the youngest tasks are at the left end. The last task is removed first, so that requeued tasks keep their
-- order. For a task that is not among the `oldest`, `is_young` returns whether it is young. If `ids` contains a task
-- twice, the task is removed once, and its second key becomes false. Scripts call this function before any other write:
-- after this removal, even a full Redis allows the later writes.
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

-- leave_together: remove adjacent tasks from the active list. Scripts call this function too before any other write.
local function leave_together(active, ends, size)
  if ends == 'old' then
    redis.call('LTRIM', active, 0, -size - 1)
  else
    redis.call('LTRIM', active, size, -1)
  end
end

-- delete_done: delete successful tasks of this worker that need no notification, and count them.
local function delete_done(lease, prefix, task_keys, ids, before, size, now_s, counters_s)
  redis.call('DEL', unpack(task_keys, 1, size))
  redis.call('ZREM', lease, unpack(ids, before + 1, before + size))
  count(prefix, 'processed', size, now_s, counters_s)
end
