--[[
  put_steps: store workflow steps whose workflow has another home queue, or make steps pending again that were stored
  before. The dispatcher of the home queue sends these steps. A repeated call changes nothing.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  zset    scheduled
  KEYS[3]  list    wake tokens
  KEYS[4]  zset    started steps
  KEYS[5]  zset    receipts by time of arrival (Unix s)
  KEYS[6]  zset    archived
  KEYS[7]  string  key that never exists
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  int     deadline (Unix s), after which another caller may have sent the steps and their receipts may be deleted
  ARGV[5]  int     retention of a receipt (s)
  ARGV[6..]        per step: receipt, task id, field taskq_step, message, start

  returns  1  stored by this or an earlier call   0  the deadline has passed
]]
-- include _engine
local flow, now_s = engine(ARGV[2], ARGV[1])
check('ZCARD', KEYS[5], KEYS[6])
if now_s > tonumber(ARGV[4]) then
  return 0
end
redis.call('DEL', KEYS[7]) -- comes first: after a DEL, even a full Redis allows the writes below
for i = 6, #ARGV, 5 do
  if not redis.call('ZSCORE', KEYS[5], ARGV[i]) then
    local is_stored = flow.revive(ARGV[3], ARGV[i + 1], ARGV[i + 2])
      or flow.put(ARGV[3], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
    if not is_stored then
      flow.refuse(ARGV[i + 2])
    end
    redis.call('ZADD', KEYS[5], whole(now_s), ARGV[i])
  end
end
for _, receipt in ipairs(redis.call('ZRANGE', KEYS[5], '-inf', whole(now_s - tonumber(ARGV[5])), 'BYSCORE', 'LIMIT', 0, 200)) do
  redis.call('ZREM', KEYS[5], receipt)
end
return flow.with_steps(1)
