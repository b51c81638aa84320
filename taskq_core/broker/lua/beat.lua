--[[
  beat: write a worker's presence.

  KEYS[1]  string  ServerInfo
  KEYS[2]  hash    running tasks: id -> WorkerInfo
  ARGV[1]  int     seconds the presence lasts
  ARGV[2]  string  ServerInfo bytes
  ARGV[3..]        per running task: id, WorkerInfo bytes

  DEL comes before any other write: Redis accepts it also over maxmemory, and with it the writes that follow.

  returns  OK
]]
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[1])
for i = 3, #ARGV, 200 do
  redis.call('HSET', KEYS[2], unpack(ARGV, i, math.min(i + 199, #ARGV)))
end
if #ARGV > 2 then
  redis.call('EXPIRE', KEYS[2], ARGV[1])
end
return 'OK'
