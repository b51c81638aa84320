--[[
  announce: publish the schedule entries of a scheduler, so that tools can show them.

  KEYS[1]  list    SchedulerEntry bytes, the last entry first
  ARGV[1]  int     seconds until the list expires
  ARGV[2..]        per entry: SchedulerEntry bytes

  The caller passes at most 1000 entries. The first write is DEL: after a DEL, even a full Redis allows the later writes
  of this script.

  returns  OK
]]
redis.call('DEL', KEYS[1])
for i = 2, #ARGV, 200 do
  redis.call('LPUSH', KEYS[1], unpack(ARGV, i, math.min(i + 199, #ARGV)))
end
if #ARGV > 1 then
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return 'OK'
