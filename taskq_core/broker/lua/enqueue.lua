--[[
  enqueue: store new tasks. A task with a start in the future becomes scheduled. Any other task joins its group, or
  becomes pending if it has no group.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  zset    scheduled tasks: id by start (Unix s)
  KEYS[3]  list    wake tokens
  KEYS[4]  string  receipt of this caller's last call: "<call>:<codes>"
  KEYS[5]  set     names of groups with members; only with 7 or 8 arguments per task
  KEYS[6..] string per task: digest of a stored call that replicas have not confirmed yet; only with 8 arguments per task
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     number of this call; a repeat with the same number changes nothing and returns the codes again, and a
                   number below the one of the receipt is refused
  ARGV[3]  int     deadline of this request by Redis's clock (Unix ms), '' without one. It is less than 120 s away; the
                   receipt is kept for 120 s after each request of the call
  ARGV[4]  string  prefix of the queue's keys
  ARGV[5]  int     arguments per task: 2 (plain), 7 or 8 (to be confirmed)
  ARGV[6..]        per task: id, message and, with 7, start ('' now, '=<Unix s>', '+<ms from now>'),
                   unique lock key ('' none), lock word (see _store), group ('' none),
                   limits ('' none); with 8 also the digest of its call
  ARGV[last] int   maximum number of pending tasks, an additional argument after the tasks; left out without a limit

  The caller sends at most 200 tasks, about 1 MiB. The maximum applies to tasks that become pending at once, not to
  scheduled or grouped tasks. If the queue is full and nothing is stored, the call writes only its receipt.

  To confirm tasks, the caller waits on the same connection until replicas have received its writes. So that there is a
  write to wait for, a repeated call renews its receipt. A caller without a confirmation enqueues again with the same id
  and another call number. The digest shows that the task was already stored, even if it has ended in the meantime. The
  caller deletes the digest after the confirmation.

  returns  one character per task:  1  stored   0  id taken   d  unique lock held by another task
           x  another task holds the lock and was not changed   u  the task that holds the lock was changed instead
           f  the queue is full; after all characters follow ':' and the number of pending tasks
           If there is a d, x or u: a line feed, and for each of them in order the task that holds the lock, as
           "<length>:<id>"
]]
-- include _clock
-- include _late
-- include _receipt
-- include _wake
-- include _batch

-- storing: return the functions for tasks with options. The functions are created for the first task with options.
local function storing()
-- include _marks
-- include _place
-- include _limits
-- include _held
-- include _store
  return store, named, place_all
end

local now_s, now_ns, now_ms = clock(ARGV[1])
local late = lateness(ARGV[3], now_ms)
if late then
  return late
end
local before = made_before(KEYS[4], ARGV[2])
if before then
  if ARGV[5] == '8' then
    redis.call('EXPIRE', KEYS[4], 120)
  else
    -- pcall: a read-only replica refuses this write, but its receipt proves that the tasks are stored
    redis.pcall('EXPIRE', KEYS[4], 120)
  end
  return before
end
local pending = redis.call('LLEN', KEYS[1]) -- raises an error, before the first write, if the key has another type
redis.call('LLEN', KEYS[3])
local stride = tonumber(ARGV[5])
local last, room = #ARGV, nil
if (last - 5) % stride == 1 then
  -- tasks that wait for a limit also count as pending
  pending = pending + redis.call('ZCOUNT', KEYS[2], far_s, far_s)
  room = tonumber(ARGV[last]) - pending
  last = last - 1
end
local keys, now, store, named, place_all
local known_calls = {}
if stride == 8 then
  for task = 1, (last - 5) / 8 do
    known_calls[task] = redis.call('GET', KEYS[5 + task])
  end
end
if stride > 2 then
  store, named, place_all = storing()
  keys = { prefix = ARGV[4], scheduled = KEYS[2], groups = KEYS[5] }
  now = { s = now_s, ns = now_ns, ms = now_ms }
  redis.call('ZCARD', KEYS[2])
  redis.call('SCARD', KEYS[5])
  local known, has_priority = {}, false
  for i = 11, last, stride do
    if not has_priority and string.find(ARGV[i - 3], 'p%d:%d;') then
      has_priority = true
      -- raises an error, before the first write, if the Redis user may not read the list
      redis.call('LINDEX', KEYS[1], -1)
    end
    local group = ARGV[i]
    if group ~= '' and not known[group] then
      known[group] = true
      redis.call('ZCARD', ARGV[4] .. 'g:' .. group)
    end
  end
end

local task_prefix = ARGV[4] .. 't:'
local codes, ready, holders = {}, new_batch(), {}
local stored = 0 -- number of tasks stored as pending, or as waiting for a limit
for i = 6, last, stride do
  local id = ARGV[i]
  local code, is_ready, band, counts, holder = nil, false, 0, false, nil
  local task = stride == 8 and (i - 6) / 8 + 1
  if task and known_calls[task] == ARGV[i + 7] then
    code = '1'
  elseif stride > 2 then
    local is_full = room and stored >= room
    code, is_ready, band, counts, holder =
      store(keys, now, id, ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], is_full)
  else
    local key = task_prefix .. id
    if redis.call('EXISTS', key) == 1 then
      code = '0'
    elseif room and stored >= room then
      code = 'f'
    else
      redis.call('HSET', key, 'msg', ARGV[i + 1], 'state', 'pending', 'pending_since', now_ns)
      code, is_ready, counts = '1', true, true
    end
  end
  if task and code == '1' then
    redis.call('SET', KEYS[5 + task], ARGV[i + 7], 'EX', 3600)
  end
  codes[#codes + 1] = code
  stored = stored + (counts and 1 or 0)
  if holder then
    holders[#holders + 1] = #holder .. ':' .. holder
  end
  if is_ready then
    ready.add(id, band)
  end
end
ready.push(KEYS[1], KEYS[3], task_prefix, now_ms, place_all)
codes = table.concat(codes)
if room and string.find(codes, 'f', 1, true) then
  local is_stored = string.find(codes, '1', 1, true)
  codes = codes .. ':' .. whole(pending + stored)
  if not is_stored and not string.find(codes, 'u', 1, true) then
    codes = named and codes .. named(holders) or codes
    -- write the receipt, so that a delayed duplicate of this request stores nothing
    redis.pcall('SET', KEYS[4], ARGV[2] .. ':' .. codes, 'EX', 120)
    return codes
  end
end
codes = named and codes .. named(holders) or codes
redis.call('SET', KEYS[4], ARGV[2] .. ':' .. codes, 'EX', 120)
return codes
