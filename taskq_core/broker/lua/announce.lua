--[[
  announce: publish the schedule entries of a scheduler, so that tools can show them.

  KEYS[1]  list    SchedulerEntry bytes, the last entry first
  ARGV[1]  int     seconds until the list expires
  ARGV[2..]        per entry: SchedulerEntry bytes

  The caller passes at most 1000 entries. DEL comes first: Redis allows it over maxmemory, and then also allows this
  script's later writes.

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
