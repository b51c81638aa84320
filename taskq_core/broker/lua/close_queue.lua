--[[
  close_queue: begin to remove a queue: set all of it aside at once, if nothing of it runs.

  KEYS[1]  list    active tasks
  KEYS[2]  list    pending tasks
  KEYS[3]  zset    scheduled
  KEYS[4]  zset    retry
  KEYS[5]  zset    archived
  KEYS[6]  zset    completed
  KEYS[7]  set     names of groups with members
  KEYS[8]  zset    groups that are being turned into one task: their keys by deadline
  KEYS[9]  zset    quarantine
  KEYS[10] zset    tasks on their way to another queue
  KEYS[11..19]     where KEYS[2..10] are set aside
  ARGV[1]  string  prefix of group keys
  ARGV[2]  int     1 to set tasks aside, 0 to do so only if there are none but completed ones

  Workers and tools find an empty queue from now on; tasks that are enqueued later are not touched.

  returns  active tasks, tasks that count (all but active and completed; of at most 1000 groups; unless tasks are set
           aside in any case, also workflows that run), tasks in all (in the
           last case those set aside, but for groups), and 1 if it was set aside, 0 if tasks run or count, -1 if what a
           removal that was cut off has set aside has to be deleted first
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
local aside = redis.call('ZCARD', KEYS[9]) + redis.call('ZCARD', KEYS[10])
local counting = sizes[1] + sizes[2] + sizes[3] + sizes[4] + grouped + aside
local reply = { active, counting, counting + sizes[5] }
reply[4] = 0
if ARGV[2] ~= '1' then -- workflows at home here would be lost, though all their tasks may be in other queues
  counting = counting + redis.call('ZCARD', string.sub(KEYS[9], 1, -11) .. 'wf-running')
  reply[2] = counting
end
if active > 0 or (counting > 0 and ARGV[2] ~= '1') then
  return reply
end
reply[4] = -1
if redis.call('EXISTS', unpack(KEYS, 11, 19)) > 0 then
  reply[3] = redis.call('LLEN', KEYS[11])
  for _, number in ipairs({ 12, 13, 14, 15, 18, 19 }) do
    reply[3] = reply[3] + redis.call('ZCARD', KEYS[number])
  end
  return reply
end
for number = 2, 10 do
  if redis.call('EXISTS', KEYS[number]) == 1 then
    redis.call('RENAME', KEYS[number], KEYS[number + 9])
  end
end
reply[4] = 1
return reply
