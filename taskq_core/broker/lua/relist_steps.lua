--[[
  relist_steps: list unfinished steps again as started steps, so that a dispatcher finds out what became of their tasks
  and reports it to their workflows. A step whose end is reported twice has ended only once.

  KEYS[1]  zset    started steps
  KEYS[2]  hash    outcomes of steps that wait to be sent to their workflows
  KEYS[3]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     1 to list them, 0 only to report
  ARGV[3..]        fields taskq_step of their tasks (at most 200)

  returns  per step  1 it was missing   0 it is listed, or its outcome waits to be sent
]]
-- include _clock
local now_s = clock(ARGV[1])
redis.call('ZCARD', KEYS[1]) -- this and the next call raise an error if a key has another type
redis.call('HLEN', KEYS[2])
local missing = {}
for i = 3, #ARGV do
  local node, key = string.match(ARGV[i], '^(%S+) %a %S+ (.+)$')
  local is_known = not node or redis.call('ZSCORE', KEYS[1], ARGV[i]) or redis.call('HEXISTS', KEYS[2], node .. ' ' .. key) == 1
  missing[#missing + 1] = is_known and 0 or 1
  if not is_known and ARGV[2] == '1' then
    redis.call('DEL', KEYS[3]) -- comes first: after a DEL, even a full Redis allows the write below
    redis.call('ZADD', KEYS[1], whole(now_s), ARGV[i])
  end
end
return table.concat(missing)
