--[[
  take_dead_letters: claim archived tasks for a dead-letter handler. A claim lasts for a limited time; then any caller
  can claim the same tasks again.

  KEYS[1]  zset    dead letters: id of an archived task by due time (Unix s)
  KEYS[2]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     length of the claim in seconds
  ARGV[3]  int     maximum number of tasks to claim (at most 100)

  returns  end of the claim (Unix s as text), then task ids
]]
-- include _clock
local now_s = clock(ARGV[1])
local until_s = whole(now_s + tonumber(ARGV[2]))
local ids = redis.call('ZRANGE', KEYS[1], '-inf', whole(now_s), 'BYSCORE', 'LIMIT', 0, ARGV[3])
if #ids > 0 then
  redis.call('DEL', KEYS[2]) -- comes first: after a DEL, even a full Redis allows the writes below
end
local reply = { until_s }
for _, id in ipairs(ids) do
  redis.call('ZADD', KEYS[1], until_s, id)
  reply[#reply + 1] = id
end
return reply
