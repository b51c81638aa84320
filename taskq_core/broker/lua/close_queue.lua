--[[
  close_queue: start to remove a queue. If no task of the queue is running, rename all lists and sets of the queue at
  once. Then every program finds an empty queue.

  KEYS[1]  list    active tasks
  KEYS[2]  list    pending tasks
  KEYS[3]  zset    scheduled
  KEYS[4]  zset    retry
  KEYS[5]  zset    archived
  KEYS[6]  zset    completed
  KEYS[7]  set     names of groups with members
  KEYS[8]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[9]  zset    quarantine
  KEYS[10..17]     new names of KEYS[2..9]
  ARGV[1]  string  prefix of group keys
  ARGV[2]  int     1 to remove unfinished tasks too, 0 to remove the queue only if it has none

  After the call, workers and tools find an empty queue. `discard` then deletes the renamed structures. Tasks that are
  enqueued after the call are not affected.

  returns  number of active tasks; number of unfinished tasks (neither active nor completed, in at most 1000 groups;
           with ARGV[2] 0 running workflows are added); number of all tasks (after a removal, without groups); and
             1  removed     0  not removed, because of active or unfinished tasks
            -1  not removed, because the tasks of an earlier, interrupted removal must be deleted first
]]
local active = redis.call('LLEN', KEYS[1])
local sizes = { redis.call('LLEN', KEYS[2]) }
for number = 3, 6 do
  sizes[#sizes + 1] = redis.call('ZCARD', KEYS[number])
end
local grouped = 0
local names = redis.call('SCARD', KEYS[7])
for _, name in ipairs(names > 1000 and redis.call('SRANDMEMBER', KEYS[7], 1000) or redis.call('SMEMBERS', KEYS[7])) do
  grouped = grouped + redis.call('ZCARD', ARGV[1] .. name)
end
for _, set in ipairs(redis.call('ZRANGE', KEYS[8], 0, 999)) do
  if string.sub(set, 1, #ARGV[1]) == ARGV[1] then
    grouped = grouped + redis.call('ZCARD', set)
  end
end
local aside = redis.call('ZCARD', KEYS[9])
local counting = sizes[1] + sizes[2] + sizes[3] + sizes[4] + grouped + aside
local reply = { active, counting, counting + sizes[5] }
reply[4] = 0
if ARGV[2] ~= '1' then -- workflows with this home queue would be lost, even if their tasks are in other queues
  counting = counting + redis.call('ZCARD', string.sub(KEYS[9], 1, -11) .. 'wf-running')
  reply[2] = counting
end
if active > 0 or (counting > 0 and ARGV[2] ~= '1') then
  return reply
end
reply[4] = -1
if redis.call('EXISTS', unpack(KEYS, 10, 17)) > 0 then
  reply[3] = redis.call('LLEN', KEYS[10])
  for _, number in ipairs({ 11, 12, 13, 14, 17 }) do
    reply[3] = reply[3] + redis.call('ZCARD', KEYS[number])
  end
  return reply
end
for number = 2, 9 do
  if redis.call('EXISTS', KEYS[number]) == 1 then
    redis.call('RENAME', KEYS[number], KEYS[number + 8])
  end
end
reply[4] = 1
return reply
