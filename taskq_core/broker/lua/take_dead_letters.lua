--[[
  take_dead_letters: claim archived tasks that have to be handled. When a claim ends, they can be claimed again.

  KEYS[1]  zset    archived tasks to handle: id by due time (Unix s)
  KEYS[2]  any     a key that never exists
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  int     length of the claim in seconds
  ARGV[3]  int     most tasks to take (at most 100)

  returns  end of the claim (Unix s as text), then ids
]]
-- include _clock
local now_s = clock(ARGV[1])
local until_s = whole(now_s + tonumber(ARGV[2]))
local ids = redis.call('ZRANGE', KEYS[1], '-inf', whole(now_s), 'BYSCORE', 'LIMIT', 0, ARGV[3])
if #ids > 0 then
  redis.call('DEL', KEYS[2]) -- accepted also over maxmemory, and with it the writes that follow
end
local reply = { until_s }
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[1], until_s, id)
  reply[#reply + 1] = id
end
return reply
