--[[
  combine: store the task that an aggregation set was turned into, and take the set away, in one step.

  KEYS[1]  zset    the set: id by the time the task joined its group (Unix s)
  KEYS[2]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[3]  zset    combined: id of a set whose members are still to be deleted, by time (Unix s)
  KEYS[4]  zset    combined members of this set: id by the time the task joined its group
  KEYS[5]  list    pending tasks
  KEYS[6]  zset    scheduled tasks: id by start (Unix s)
  KEYS[7]  set     names of groups with members
  KEYS[8]  list    wake tokens
  KEYS[9]  string  receipt: what this call did
  KEYS[10] any     a key that never exists
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  channel for the ids of ended tasks
  ARGV[4]  string  id of the set
  ARGV[5]  int     members the set had when it was read
  ARGV[6]  int     seconds the receipt is kept
  ARGV[7..13]      the task: id, message, start, unique lock key, word of the lock, group, limits, as in enqueue; left out
                   when the members are dropped for nothing

  The set is renamed to one of our keys in the same step, so neither Go nor taskq can give its members back to their
  group once the task is stored; the first members are deleted at once and the rest by sweep. A set whose deadline has
  passed is refused, for it may be on its way back, and what was read of it is not what it holds: its members come again.

  returns  1  done   0  id taken   d  unique lock held by another task
           g  the set is not there as it was read, or its deadline has passed
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

redis.call('DEL', KEYS[10]) -- accepted also over maxmemory, and with it the writes that follow
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
