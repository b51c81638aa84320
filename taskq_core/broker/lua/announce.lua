--[[
  announce: write the periodic entries of a scheduler, for tools to show.

  KEYS[1]  list    SchedulerEntry bytes, the last entry first
  ARGV[1]  int     seconds they last
  ARGV[2..]        per entry: SchedulerEntry bytes

  The entries are bounded by their caller (1000). DEL comes first: Redis accepts it also over maxmemory, and with it the
  writes that follow.

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
