--[[
  settle_and_dequeue: settle tasks that succeeded and need no notification, and hand new tasks to the worker. For this
  most frequent case, one script costs Redis less than settle and dequeue.

  KEYS     as in dequeue
  ARGV[1..13]      as in dequeue; a call number that was used before is refused
  ARGV[14] int     seconds until a daily counter expires
  ARGV[15] string  numbers of the runs, as in settle
  ARGV[16..]       ids of the tasks that are done (at most 200)

  Either all tasks are settled, or nothing is changed. Nothing is changed if this worker no longer owns one of the
  tasks, if a client waits for one of the tasks, if one of the tasks is a step of a workflow or holds a permit of a
  limit, or if the search in the active list would take too long. Then the worker calls settle and dequeue.

  returns  as dequeue; nil if nothing was changed
]]
-- include _clock
-- include _late
-- include _date
-- include _count
-- include _ends
local now_s, now_ns, now_ms = clock(ARGV[1])
local late = lateness(ARGV[12], now_ms)
if late then
  return late
end
local last = redis.pcall('GET', KEYS[6]) -- a key of another type is not a record of a call, so it is overwritten
local number = type(last) == 'string' and tonumber(string.match(last, '^%d+'))
if number and number >= tonumber(ARGV[3]) then
  return false
end
local size = #ARGV - 15
local task_keys, _, mine, is_plain = owned(KEYS[3], ARGV[2], ARGV[15], ARGV[7], ARGV, 15, size)
if mine < size or not is_plain then
  return false
end
local ends, oldest = common_end(KEYS[2], ARGV, 15, size)
if not ends then
  local is_named = {}
  for position = 16, #ARGV do
    if is_named[ARGV[position]] then
      return false
    end
    is_named[ARGV[position]] = true
  end
  if size > scannable(KEYS[2]) then
    return false
  end
end
-- these calls raise an error if a key has another type
local pending, tokens = redis.call('LLEN', KEYS[1]), redis.call('LLEN', KEYS[5])

if ends then
  leave_together(KEYS[2], ends, size)
else
  leave_one_by_one(KEYS[2], ARGV, 15, size, task_keys, oldest, function()
    return true
  end)
end
delete_done(KEYS[3], string.sub(ARGV[7], 1, -3), task_keys, ARGV, 15, size, now_s, tonumber(ARGV[14]))

local expiry = whole(now_s + tonumber(ARGV[6]))
local reply = { now_ns, expiry, 0, '' }
if pending == 0 or redis.call('EXISTS', KEYS[4]) == 1 then
  return reply
end
-- include _wake
-- include _hand_out
