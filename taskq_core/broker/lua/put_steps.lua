--[[
  put_steps: store steps of workflows at home elsewhere, or let them run again. A repeat changes nothing.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  zset    scheduled
  KEYS[3]  list    wake tokens
  KEYS[4]  zset    steps that were started
  KEYS[5]  zset    receipts: by the second they came
  KEYS[6]  zset    archived
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  int     Unix second after which it is too late: another caller may have sent them, and receipts be gone
  ARGV[5]  int     seconds a receipt is kept
  ARGV[6..]        per step: receipt, task id, step, message, start

  returns  1 stored, now or before   0 too late
]]
-- include _engine
local flow, now_s = engine(ARGV[2], ARGV[1])
check('ZCARD', KEYS[5], KEYS[6])
if now_s > tonumber(ARGV[4]) then
  return 0
end
for i = 6, #ARGV, 5 do
  if not redis.call('ZSCORE', KEYS[5], ARGV[i]) then
    if not flow.revive(ARGV[3], ARGV[i + 1], ARGV[i + 2]) then
      flow.put(ARGV[3], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
    end
    redis.call('ZADD', KEYS[5], whole(now_s), ARGV[i])
  end
end
for _, receipt in ipairs(redis.call('ZRANGE', KEYS[5], '-inf', whole(now_s - tonumber(ARGV[5])), 'BYSCORE', 'LIMIT', 0, 200)) do
  redis.call('ZREM', KEYS[5], receipt)
end
return 1
