--[[
  count_tasks: count the tasks of a queue. Changes nothing.

  KEYS[1..6]  pending, active, scheduled, retry, archived, completed
  KEYS[7]     set     names of groups with members
  KEYS[8]     string  present while the queue is paused
  KEYS[9]     string  lifetime counter of processed tasks
  KEYS[10]    string  lifetime counter of failed tasks
  ARGV[1]     int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]     string  prefix of the queue's keys

  returns  now (Unix ns as text), sizes of KEYS[1..6], aggregating tasks (of at most 1000 groups), 1 if paused, lifetime
           processed, lifetime failed, processed today, failed today, pending_since of the next task to run (Unix ns, ''
           unknown), groups, scheduled tasks that wait for a limit
]]
-- include _clock
-- include _date
local now_s, now_ns = clock(ARGV[1])
local function number(value) -- a value that is no number counts as 0; the next increment replaces it
  return value and string.match(value, '^%-?%d+$') or '0'
end
local aggregating = 0
local named = redis.call('SCARD', KEYS[7])
if named > 0 then
  local groups = named > 1000 and redis.call('SRANDMEMBER', KEYS[7], 1000) or redis.call('SMEMBERS', KEYS[7])
  for _, group in ipairs(groups) do
    local size = redis.pcall('ZCARD', ARGV[2] .. 'g:' .. group) -- pcall: skip a group whose key has another type
    aggregating = aggregating + (type(size) == 'number' and size or 0)
  end
end
local today = utc_date(now_s)
local counters = -- MGET returns nothing for a key of another type
  redis.call('MGET', KEYS[9], KEYS[10], ARGV[2] .. 'processed:' .. today, ARGV[2] .. 'failed:' .. today)
local pending, scheduled = redis.call('LLEN', KEYS[1]), redis.call('ZCARD', KEYS[3])
local next_id = pending > 0 and redis.call('LINDEX', KEYS[1], -1)
local since = next_id and redis.pcall('HGET', ARGV[2] .. 't:' .. next_id, 'pending_since')
return {
  now_ns,
  pending,
  redis.call('LLEN', KEYS[2]),
  scheduled,
  redis.call('ZCARD', KEYS[4]),
  redis.call('ZCARD', KEYS[5]),
  redis.call('ZCARD', KEYS[6]),
  aggregating,
  redis.call('EXISTS', KEYS[8]),
  number(counters[1]),
  number(counters[2]),
  number(counters[3]),
  number(counters[4]),
  type(since) == 'string' and string.match(since, '^%d+$') or '',
  named,
  scheduled > 0 and redis.call('ZCOUNT', KEYS[3], far_s, far_s) or 0,
}
