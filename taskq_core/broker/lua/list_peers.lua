--[[
  list_peers: record this worker process, and list the other worker processes on the same host.

  KEYS[1]  hash    worker processes of one host: token -> record
  ARGV[1]  string  token of this worker
  ARGV[2]  string  its record
  ARGV[3]  int     seconds to keep the hash

  The first write is EXPIRE: after an EXPIRE, even a full Redis allows the later writes of this script.

  returns  per other worker process: token, record
]]
redis.call('EXPIRE', KEYS[1], ARGV[3])
local stored = redis.pcall('HGETALL', KEYS[1])
if stored.err then -- a key of another type would keep every worker from recording itself
  redis.call('DEL', KEYS[1])
  stored = {}
end
local peers, is_recorded = {}, false
for i = 1, #stored, 2 do
  if stored[i] ~= ARGV[1] then
    peers[#peers + 1] = stored[i]
    peers[#peers + 1] = stored[i + 1]
  else
    is_recorded = stored[i + 1] == ARGV[2]
  end
end
if not is_recorded then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return peers
