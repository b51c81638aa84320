--[[
  beat: publish that a worker is alive and which tasks it runs. The worker calls this script every few seconds.

  KEYS[1]  string  ServerInfo
  KEYS[2]  hash    running tasks: id -> WorkerInfo
  ARGV[1]  int     seconds until both keys expire
  ARGV[2]  string  ServerInfo bytes
  ARGV[3..]        per running task: id, WorkerInfo bytes

  The first write is DEL: after a DEL, even a full Redis allows the later writes of this script.

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
