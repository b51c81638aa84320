--[[
  settle_and_dequeue: settle finished tasks of a worker that need no notification, and hand it others in
  their place. One script for what most turns of a worker are: it costs Redis less than a settle and a dequeue.

  KEYS     as those of dequeue
  ARGV[1..12]      as those of dequeue; a number of a call that was made already is refused
  ARGV[13] int     seconds a daily counter is kept
  ARGV[14] string  runs of the tasks, as in settle
  ARGV[15..]       ids of the tasks that are done, at most 200

  Either all of them are settled, or nothing is done: where one is not this worker's, is waited for, belongs to a workflow
  or holds a place of a limit, or where they would have to be looked for in a long list. Then settle and dequeue are for it.

  returns  as dequeue; nil where nothing is done
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
local last = redis.pcall('GET', KEYS[6]) -- a key of another type is not a record, and is overwritten
local number = type(last) == 'string' and tonumber(string.match(last, '^%d+'))
if number and number >= tonumber(ARGV[3]) then
  return false
end
local size = #ARGV - 14
local task_keys, _, mine, is_plain = owned(KEYS[3], ARGV[2], ARGV[14], ARGV[7], ARGV, 14, size)
if mine < size or not is_plain then
  return false
end
local ends, oldest = stand_together(KEYS[2], ARGV, 14, size)
if not ends then
  local is_named = {}
  for position = 15, #ARGV do
    if is_named[ARGV[position]] then
      return false
    end
    is_named[ARGV[position]] = true
  end
  if size > scannable(KEYS[2]) then
    return false
  end
end
local pending, tokens = redis.call('LLEN', KEYS[1]), redis.call('LLEN', KEYS[5]) -- keys of another type are refused here

if ends then
  leave_together(KEYS[2], ends, size)
else
  leave_one_by_one(KEYS[2], ARGV, 14, size, task_keys, oldest, function()
    return true
  end)
end
delete_done(KEYS[3], string.sub(ARGV[7], 1, -3), task_keys, ARGV, 14, size, now_s, tonumber(ARGV[13]))

local expiry = whole(now_s + tonumber(ARGV[6]))
local reply = { now_ns, expiry, 0, '' }
if pending == 0 or redis.call('EXISTS', KEYS[4]) == 1 then
  return reply
end
-- include _wake
-- include _hand_out
