--[[
  repair_tasks: diagnose tasks that a scan has reported as suspect. Repair each task whose diagnosis is the same as in
  an earlier call.

  KEYS[1]  list    pending tasks
  KEYS[2]  list    active tasks
  KEYS[3]  zset    leases: id by expiry (Unix s)
  KEYS[4]  zset    scheduled: id by start (Unix s)
  KEYS[5]  zset    retry: id by next attempt (Unix s)
  KEYS[6]  zset    archived: id by archiving time (Unix s)
  KEYS[7]  zset    completed: id by end of retention (Unix s)
  KEYS[8]  set     names of groups with members
  KEYS[9]  zset    aggregation sets: full key by deadline (Unix s)
  KEYS[10] list    wake tokens
  KEYS[11] zset    quarantine: id by time (Unix s)
  KEYS[12] zset    combined sets: id of a set whose members must still be deleted, by time (Unix s)
  KEYS[13] any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  channel for the ids of ended tasks
  ARGV[4]  string  prefix of quarantined hashes
  ARGV[5]  int     length of a new lease, and age after which a lost lease is not restored (s)
  ARGV[6]  string  prefix of the renamed structures (pending, scheduled, ...) of a queue that is being removed
  ARGV[7]  int     longest time from now until the end of a worker's lease (s)
  ARGV[8..]        per task: id, diagnosis of an earlier call ('' to repair nothing), message that cannot be decoded ('' if
                   it can), group in which it was found or that its message names ('' none), time of archiving and end
                   of retention (Unix s, 0 unknown)

  A task belongs in the first of these structures: active, if the worker's fence matches the lease; the structure of its
  state, if the task is in it; another structure that contains the task; the structure of its state. A lost lease is
  restored from the fence, so that the worker continues the run. A fence that is too old is removed, so that no worker
  extends the new lease. A lease that ends later than any worker's lease can is ignored unless the fence matches. If the
  time at which a task was due is lost or infinite, it is due now. A task that is being removed or deleted is not reported.

  returns  per task: diagnosis ('' if nothing is wrong), kind of damage, state, structures that contain it, structure in
           which it belongs, and
             1  repaired   0  not repaired   2  not checked, send it again (searches in long lists are limited)
]]
-- include _check
-- include _clock
-- include _wake
-- include _leave_active
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _place
-- include _limits
local now_s, now_ns, now_ms = clock(ARGV[1])
local prefix, lease_s, longest_s = ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[7])
-- These calls raise an error, before the first write, if a key has another type.
local scan = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2])
redis.call('ZCARD', KEYS[3])
local sets = { scheduled = KEYS[4], retry = KEYS[5], archived = KEYS[6], completed = KEYS[7] }
for _, set in pairs(sets) do
  redis.call('ZCARD', set)
end
check('SCARD', KEYS[8])
check('ZCARD', KEYS[9], KEYS[11], KEYS[12])
check('LLEN', KEYS[10])
local budget = math.max(1, math.floor(500000 / math.max(1, scan)))

-- Order of precedence of the structures that contain a task, if none of them is the structure of its state.
local order = { 'active', 'pending', 'retry', 'scheduled', 'aggregating', 'archived', 'completed' }

local function score_in(set, id)
  local score = redis.pcall('ZSCORE', set, id)
  return type(score) == 'string' and score or nil
end

-- find_in_group: add to `members` the keys that contain a task: aggregation sets of the group first, then the group.
local function find_in_group(found, group, id)
  local key = prefix .. 'g:' .. group
  for _, set in ipairs(redis.call('ZRANGE', KEYS[9], 0, 199)) do
    if string.sub(set, 1, #key + 1) == key .. ':' and score_in(set, id) then
      found[#found + 1] = set
    end
  end
  if score_in(key, id) then
    found[#found + 1] = key
  end
end

-- The tasks of a queue that is being removed are in renamed structures, and must not be restored.
local is_removed = false
for _, kind in ipairs({ 'pending', 'scheduled', 'retry', 'archived', 'completed', 'groups', 'aggregation_sets', 'quarantine' }) do
  is_removed = is_removed or redis.call('EXISTS', ARGV[6] .. kind) == 1
end

-- is_leaving: return whether a task that is in no list or set may be in the middle of a removal or a deletion.
local function is_leaving(id, state)
  if is_removed then
    return true
  elseif state ~= 'aggregating' then
    return false
  end
  for _, set in ipairs(redis.call('ZRANGE', KEYS[12], 0, 199)) do
    if score_in(KEYS[12] .. ':' .. set, id) then
      return true
    end
  end
  return redis.call('ZCARD', KEYS[9]) > 200 or redis.call('ZCARD', KEYS[12]) > 200 -- more sets than one call may search
end

-- facts: read everything that the diagnosis of a task needs.
local function facts(id, group)
  local task = { id = id, key = prefix .. 't:' .. id }
  local fields = redis.pcall('HMGET', task.key, 'msg', 'state', 'group', 'taskq_owner', 'unique_key', 'taskq_wait')
  if fields.err then
    task.strange = true
  else
    task.message, task.state, task.owner = fields[1], fields[2], fields[4]
    task.group, task.named = fields[3], fields[3]
    task.lock, task.waited = fields[5], fields[6]
    task.stub = not task.message and redis.call('EXISTS', task.key) == 1
    if task.message == '' then
      task.message, task.stub = false, true
    end
  end
  local found = redis.call('LPOS', KEYS[1], id, 'COUNT', 0)
  task.pending = type(found) == 'table' and #found or 0
  found = redis.call('LPOS', KEYS[2], id, 'COUNT', 0)
  task.active = type(found) == 'table' and #found or 0
  task.lease = score_in(KEYS[3], id)
  if task.lease and tonumber(task.lease) > now_s + longest_s then
    task.lease, task.far = nil, task.lease
  end
  task.score = {}
  for name, set in pairs(sets) do
    task.score[name] = score_in(set, id)
  end
  task.members = {} -- keys of groups and aggregation sets that contain the task, those of its own group first
  if task.named then
    find_in_group(task.members, task.named, id)
  end
  if group ~= '' and group ~= task.named then
    local first = #task.members
    find_in_group(task.members, group, id)
    if first == 0 and (#task.members > 0 or not task.named) then
      task.group = group
    end
  end
  task.member_of = task.members[1]
  return task
end

local function is_in(task, place)
  if place == 'active' then
    return task.active > 0 or task.lease ~= nil
  elseif place == 'pending' then
    return task.pending > 0
  elseif place == 'aggregating' then
    return task.member_of ~= nil
  end
  return task.score[place] ~= nil
end

-- is_endless: return whether the time of a task in its zset is infinite, so that it is never due or never deleted.
local function is_endless(task, place)
  if place == 'aggregating' then
    local group = prefix .. 'g:' .. (task.group or '')
    return task.member_of == group and score_in(group, task.id) == 'inf'
  end
  return task.score[place] == 'inf'
end

-- diagnose: return the damage of a task ('' if none), the names of the lists and sets that contain the task, and where
-- the task belongs.
local function diagnose(task, unreadable, kept_s)
  local places, named = {}, {}
  for _, place in ipairs(order) do
    if is_in(task, place) then
      places[#places + 1] = place
      local times = place == 'pending' and task.pending or place == 'active' and task.active or 1
      if place == 'aggregating' then
        times = #task.members
      end
      named[#named + 1] = times > 1 and (place .. '*' .. times) or place
    end
  end
  if task.far then
    named[#named + 1] = 'a lease without end'
  end
  local listed = table.concat(named, ',')
  local is_listed = #places > 0 or task.far ~= nil
  if task.strange then
    return is_listed and 'listed_without_task' or '', listed, 'drop'
  elseif not task.message then
    local kind = task.stub and 'task_without_message' or is_listed and 'listed_without_task' or ''
    return kind, listed, 'drop'
  end
  local held = task.lease or task.far
  local fenced = held and task.owner and string.match(task.owner, ':(%d+)$') == held
  if unreadable ~= '' and unreadable == task.message then
    if task.lease then
      return '', listed, 'active' -- no damage: the worker or the recoverer moves the task to quarantine
    end
    return 'unreadable', listed, 'quarantine'
  end
  local known = task.state and (sets[task.state] or task.state == 'pending' or task.state == 'active')
  if task.state == 'aggregating' and task.group then
    known = true
  end
  local truth = known and task.state or kept_s ~= '0' and 'completed' or 'pending'
  if fenced then
    truth = 'active'
  elseif not (known and is_in(task, task.state)) and #places > 0 then
    truth = places[1]
  end
  if #places == 0 then
    return is_leaving(task.id, truth) and '' or 'not_listed', listed, truth
  elseif #places > 1 or task.pending > 1 or task.active > 1 or #task.members > 1 then
    return 'listed_twice', listed, truth
  elseif task.state ~= truth or (truth == 'aggregating' and task.named ~= task.group) then
    return 'wrong_state', listed, truth
  elseif is_endless(task, truth) then
    return 'infinite_time', listed, truth
  elseif task.far then
    return 'lease_too_long', listed, truth
  elseif truth == 'active' and not task.lease then
    return 'active_without_lease', listed, truth
  elseif truth == 'active' and task.active == 0 then
    return 'lease_without_active', listed, truth
  elseif truth == 'aggregating' and task.member_of == prefix .. 'g:' .. task.group then
    local is_named = is_removed or redis.call('SISMEMBER', KEYS[8], task.group) == 1
    return is_named and '' or 'group_not_listed', listed, truth
  end
  return '', listed, truth
end

-- unlist: remove a task from all lists and sets except one, and remove duplicates of the task from this one.
local function unlist(task, but)
  local id = task.id
  local extra = task.pending - (but == 'pending' and 1 or 0)
  if extra > 0 then
    redis.call('LREM', KEYS[1], extra, id)
  end
  extra = task.active - (but == 'active' and 1 or 0)
  if extra > 0 then
    redis.call('LREM', KEYS[2], extra, id)
  end
  if but ~= 'active' then
    redis.call('ZREM', KEYS[3], id)
  end
  for name, set in pairs(sets) do
    if name ~= but then
      redis.call('ZREM', set, id)
    end
  end
  for position = but == 'aggregating' and 2 or 1, #task.members do
    local key = task.members[position]
    redis.call('ZREM', key, id)
    if redis.call('EXISTS', key) == 0 then
      redis.call('SREM', KEYS[8], string.sub(key, #prefix + 3))
      redis.call('ZREM', KEYS[9], key)
    end
  end
end

local function enlist_active(task)
  if task.active == 0 then
    redis.call('LPUSH', KEYS[2], task.id)
  end
  if not task.lease then
    local token, score = string.match(task.owner or '', '^(.*):(%d+)$')
    if score and score == task.far then -- the task's worker may be alive. It continues with the new lease
      score = whole(now_s + lease_s)
      redis.call('HSET', task.key, 'taskq_owner', token .. ':' .. score)
      redis.call('ZADD', KEYS[3], score, task.id)
    elseif score and tonumber(score) > now_s - lease_s and tonumber(score) <= now_s + longest_s then
      redis.call('ZADD', KEYS[3], score, task.id)
    else
      redis.call('HDEL', task.key, 'taskq_owner', 'taskq_started')
      redis.call('ZADD', KEYS[3], whole(now_s + lease_s), task.id)
    end
  end
end

-- enlist: add a task to the list or set in which it belongs, and set the state of the task accordingly.
local function enlist(task, truth, archived_s, kept_s)
  local id = task.id
  redis.call('HSET', task.key, 'state', truth)
  if truth == 'active' then
    enlist_active(task)
    return
  end
  redis.call('HDEL', task.key, 'taskq_owner', 'taskq_started')
  local is_unchanged = is_in(task, truth) and not is_endless(task, truth)
  if is_unchanged and truth ~= 'aggregating' then
    return
  elseif truth == 'pending' then
    redis.call('HSETNX', task.key, 'pending_since', now_ns)
    redis.call('LPUSH', KEYS[1], id)
    wake(KEYS[10])
  elseif truth == 'aggregating' then
    redis.call('HSET', task.key, 'group', task.group)
    if not is_unchanged then
      redis.call('ZADD', prefix .. 'g:' .. task.group, whole(now_s), id)
    end
    if redis.call('EXISTS', prefix .. 'g:' .. task.group) == 1 then
      redis.call('SADD', KEYS[8], task.group)
    end
  elseif truth == 'archived' then
    redis.call('ZADD', sets.archived, archived_s == '0' and whole(now_s) or archived_s, id)
  elseif truth == 'completed' then
    redis.call('ZADD', sets.completed, kept_s == '0' and whole(now_s + 86400) or kept_s, id)
  else
    redis.call('ZADD', sets[truth], whole(now_s), id)
  end
end

local reply = {}
local limits = limiter(prefix, now_s, now_ns, now_ms)
for i = 8, #ARGV, 6 do
  local id, expected = ARGV[i], ARGV[i + 1]
  local diagnosis, kind, state, listed, truth, code = '', '', '', '', '', '2'
  if budget > 0 then
    budget = budget - 1
    local task = facts(id, ARGV[i + 3])
    kind, listed, truth = diagnose(task, ARGV[i + 2], ARGV[i + 5])
    state, code = string.sub(task.state or '', 1, 32), '0'
    if truth == 'aggregating' and kind ~= '' then
      local group_type = redis.call('TYPE', prefix .. 'g:' .. task.group)['ok']
      if group_type ~= 'none' and group_type ~= 'zset' then
        truth = 'pending' -- the group key is not a zset, so the task runs alone
      end
    end
    if kind ~= '' then
      diagnosis = table.concat({ kind, state, listed, truth }, '|')
    end
    if kind ~= '' and diagnosis == expected then
      code = '1'
      redis.call('DEL', KEYS[13]) -- comes first: after a DEL, even a full Redis allows the writes below
      unlist(task, truth)
      if not task.strange and truth ~= 'active' and truth ~= 'pending' and truth ~= 'scheduled' then
        limits.release_permits(id, task.key, truth == 'retry' and 'retry' or truth == 'archived' and 'archive')
      end
      if truth == 'drop' then
        if task.lock then
          release(task.lock, id)
        end
        if task.stub then
          -- delete a hash without a message, because it prevents new tasks with this id
          redis.call('DEL', task.key)
        end
        announce({ done = ARGV[3] }, task.waited, id)
      elseif truth == 'quarantine' then
        if task.lock then
          release(task.lock, id)
        end
        redis.call('RENAME', task.key, ARGV[4] .. id)
        redis.call('HDEL', ARGV[4] .. id, 'taskq_owner', 'taskq_started')
        redis.call('ZADD', KEYS[11], whole(now_s), id)
        announce({ done = ARGV[3] }, task.waited, id)
      else
        enlist(task, truth, ARGV[i + 4], ARGV[i + 5])
      end
    end
  end
  for _, word in ipairs({ diagnosis, kind, state, listed, truth, code }) do
    reply[#reply + 1] = word
  end
end
limits.finish()
return reply
