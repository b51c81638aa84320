--[[
  deliver: store tasks from an outbox (a database table). Each task is stored once, even if several senders deliver the
  same task.

  Each delivered task has a receipt until the row of the task is deleted from the outbox. If a sender dies before it
  deletes the row, the next sender delivers the row again and finds the receipt. A sender claims rows for a limited
  time. After this time it stores nothing, because another sender may have delivered the tasks, deleted the rows and
  deleted the receipts. Before the claim ends, a delayed duplicate of this request finds the number of its call, or of a
  later call, in KEYS[6] and changes nothing.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  zset    scheduled tasks: id by start (Unix s)
  KEYS[3]  list    wake tokens
  KEYS[4]  zset    receipts of delivered tasks by the second of delivery
  KEYS[5]  set     names of groups with members
  KEYS[6]  string  receipt of this caller's last call: "<call>:<codes>", kept for 120 s; a claim is shorter
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     end of the sender's claim on the rows (Unix ms by Redis's clock)
  ARGV[3]  int     seconds after which a receipt expires if its sender has not deleted it
  ARGV[4]  string  prefix of the queue's keys
  ARGV[5]  int     maximum number of pending tasks, '' for no limit
  ARGV[6]  int     number of this call; a repeat returns the codes again
  ARGV[7..]        per task: receipt, id, message, start ('' now, '=<Unix s>', '+<ms from now>'), optionally followed
                   by a line feed and the fields of a copied task, see `set_fields`; unique lock key
                   ('' none), lock word (see _store), group ('' none), limits ('' none)

  The caller sends at most 200 tasks, about 1 MiB.

  returns  one character per task:  1  stored   s  stored by an earlier delivery
             0  id taken   d  unique lock held by another task   f  the queue is full
             x  another task holds the lock and was not changed   u  the task that holds the lock was changed instead
             l  too late: the claim has ended
           Then the tasks that hold the locks, as in enqueue
]]
-- include _check
-- include _clock
-- include _marks
-- include _place
-- include _receipt
-- include _limits
-- include _held
-- include _store
-- include _wake
-- include _batch
local now_s, now_ns, now_ms = clock(ARGV[1])
local pending = redis.call('LLEN', KEYS[1]) -- this and the next calls raise an error if a key has another type
check('ZCARD', KEYS[2], KEYS[4])
check('LLEN', KEYS[3])
check('SCARD', KEYS[5])
local count = (#ARGV - 6) / 8
local room = ARGV[5] ~= ''
  and tonumber(ARGV[5]) - pending - redis.call('ZCOUNT', KEYS[2], far_s, far_s)
if now_ms >= tonumber(ARGV[2]) then
  return string.rep('l', count)
end
local before = made_before(KEYS[6], ARGV[6])
if before then
  redis.pcall('EXPIRE', KEYS[6], 120) -- a write, because the caller waits until replicas have received its last write
  return before
end
local keys = { prefix = ARGV[4], scheduled = KEYS[2], groups = KEYS[5] }
local now = { s = now_s, ns = now_ns, ms = now_ms }
local known = {}
for i = 7, #ARGV, 8 do
  local group = ARGV[i + 6]
  if group ~= '' and not known[group] then
    known[group] = true
    redis.call('ZCARD', ARGV[4] .. 'g:' .. group)
  end
end

-- set_fields: set further fields of a new task: names and values, each as "<length>:<text>". They may mark the task as a
-- step of a workflow, see `_flow`.
local function set_fields(key, text)
  local at, words = 1, {}
  while at <= #text do
    local size, first = string.match(text, '^(%d+):()', at)
    at = first + tonumber(size)
    words[#words + 1] = string.sub(text, first, at - 1)
  end
  for i = 1, #words, 2 do
    redis.call('HSET', key, words[i], words[i + 1])
    if words[i] == 'taskq_step' then
      redis.pcall('ZADD', string.sub(KEYS[3], 1, -5) .. 'wf-steps', whole(now_s), words[i + 1])
    end
  end
end

local codes, ready, stored, holders = {}, new_batch(), 0, {}
for i = 7, #ARGV, 8 do
  local code, is_ready, band, counts, holder = 's', false, 0, false, nil
  if not redis.call('ZSCORE', KEYS[4], ARGV[i]) then
    local id, is_full = ARGV[i + 1], room and stored >= room
    local start, fields = string.match(ARGV[i + 3], '^([^\n]*)\n?(.*)$')
    code, is_ready, band, counts, holder =
      store(keys, now, id, ARGV[i + 2], start, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], is_full)
    stored = stored + (counts and 1 or 0)
    if code == '1' then
      set_fields(ARGV[4] .. 't:' .. id, fields)
    end
  end
  if code == '1' or code == 's' or code == 'x' or code == 'u' then
    redis.call('ZADD', KEYS[4], whole(now_s), ARGV[i])
  end
  codes[#codes + 1] = code
  if holder then
    holders[#holders + 1] = #holder .. ':' .. holder
  end
  if is_ready then
    ready.add(ARGV[i + 1], band)
  end
end
ready.push(KEYS[1], KEYS[3], ARGV[4] .. 't:', now_ms, place_all)
codes = table.concat(codes) .. named(holders)
redis.call('SET', KEYS[6], ARGV[6] .. ':' .. codes, 'EX', 120)
-- This write is the last one, because Redis never refuses it. A full Redis must refuse the first write above.
local old = redis.call('ZRANGE', KEYS[4], '-inf', whole(now_s - tonumber(ARGV[3])), 'BYSCORE', 'LIMIT', 0, 100)
if #old > 0 then
  redis.call('ZREM', KEYS[4], unpack(old))
end
return codes
