--[[
  combine: store the task that replaces all members of an aggregation set, and remove the set, in one step.

  KEYS[1]  zset    the set: id by the time the task joined its group (Unix s)
  KEYS[2]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[3]  zset    combined sets: id of a set whose members must still be deleted, by time (Unix s)
  KEYS[4]  zset    new name of the set: id by the time the task joined its group
  KEYS[5]  list    pending tasks
  KEYS[6]  zset    scheduled tasks: id by start (Unix s)
  KEYS[7]  set     names of groups with members
  KEYS[8]  list    wake tokens
  KEYS[9]  string  receipt: result of this call, for a repeat
  KEYS[10] any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  channel for the ids of ended tasks
  ARGV[4]  string  id of the set
  ARGV[5]  int     number of members when the caller read the set
  ARGV[6]  int     seconds until the receipt expires
  ARGV[7..13]      the new task: id, message, start, unique lock key, lock word, group, limits, as in enqueue; left out
                   to drop the members without a new task

  The set is renamed in the same step, so neither Go nor taskq can return its members to their group after the new task
  was stored. This call deletes the first members, and the script `sweep` deletes the others. A set whose deadline has
  passed is refused, because its members may already be on the way back to their group. Then the group is collected
  again.

  returns  1  stored   0  id taken   d  unique lock held by another task
           g  the set was deleted or has changed since the caller read it, or its deadline has passed
]]
-- include _check
-- include _clock
-- include _marks
-- include _place
-- include _limits
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _store
-- include _wake
-- include _leave_active
-- include _lock
-- include _sweep
local now_s, now_ns, now_ms = clock(ARGV[1])
local receipt = redis.pcall('GET', KEYS[9]) -- a key of another type is not a receipt, and is overwritten
if type(receipt) == 'string' then
  return receipt
end
local score = redis.call('ZSCORE', KEYS[2], KEYS[1])
local size = redis.call('ZCARD', KEYS[1])
check('ZCARD', KEYS[3], KEYS[4], KEYS[6])
check('LLEN', KEYS[5], KEYS[8])
check('SCARD', KEYS[7])
if ARGV[12] and ARGV[12] ~= '' then
  redis.call('ZCARD', ARGV[2] .. 'g:' .. ARGV[12])
end
if not score or tonumber(score) <= now_s or size == 0 or size ~= tonumber(ARGV[5]) then
  return 'g'
end

redis.call('DEL', KEYS[10]) -- comes first: after a DEL, even a full Redis allows the writes below
local keys = { prefix = ARGV[2], done = ARGV[3], scheduled = KEYS[6], groups = KEYS[7] }
if ARGV[7] then
  local now = { s = now_s, ns = now_ns, ms = now_ms }
  local code, is_ready, band = store(keys, now, ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13])
  if code ~= '1' then
    return code
  end
  if is_ready then
    join(KEYS[5], KEYS[8], ARGV[2] .. 't:', now_ms, ARGV[7], band)
    wake(KEYS[8])
  end
end
redis.call('RENAME', KEYS[1], KEYS[4])
redis.call('ZREM', KEYS[2], KEYS[1])
if sweep(keys, KEYS[4]) < size then
  redis.call('ZADD', KEYS[3], whole(now_s), ARGV[4])
end
redis.call('SET', KEYS[9], '1', 'EX', ARGV[6])
return '1'
