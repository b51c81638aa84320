--[[
  create_workflow: store a workflow, or one part of a large workflow. The workflow starts when its last part is stored.

  KEYS[1]  hash    the workflow
  KEYS[2]  zset    running workflows: id by start (Unix s)
  KEYS[3..7]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  KEYS[8]  zset    receipts of outbox rows by time of delivery (Unix s), see `deliver`
  KEYS[9]  string  receipt of this caller's last call: the number of the call, kept for 120 s
  KEYS[10] string  key that never exists
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  string  id of the workflow
  ARGV[4]  int     seconds after which an unstarted workflow expires
  ARGV[5]  string  '' if more parts follow; otherwise the numbers of the nodes without parents, each followed by a space
  ARGV[6]  string  receipt of the outbox row that contains this part, '' if a client sends it directly
  ARGV[7]  int     with a receipt: end of the sender's claim (Unix ms by Redis's clock). Without one: deadline of this
                   request, or ''
  ARGV[8]  int     with a receipt: number of parts. They arrive in any order, and the last one starts the workflow
  ARGV[9]  int     number of this call
  ARGV[10] string  '1' for sub-tasks of a running task, which a full Redis accepts, otherwise ''
  ARGV[11..]       fields to store: suffix of the key ('' the workflow, ':h<i>' members of a group), field, value

  A started workflow is not changed, so a repeated call does nothing.

  returns  1  stored   0  the earlier parts have expired
           2  stored by an earlier delivery   3  too late: the claim has ended
]]
-- include _engine
-- include _late
-- include _receipt
local flow, now_s, now_ms = engine(ARGV[2], ARGV[1])
check('ZCARD', KEYS[2])
local receipt = ARGV[6]
local late = receipt == '' and lateness(ARGV[7], now_ms)
if late then
  return late
end
local is_known = receipt ~= '' and redis.call('ZSCORE', KEYS[8], receipt)
if receipt ~= '' and now_ms >= tonumber(ARGV[7]) then
  return 3
elseif is_known then
  -- a write, because the caller waits until replicas have received its last write
  redis.call('ZADD', KEYS[8], whole(now_s), receipt)
  return 2
end
local before = made_before(KEYS[9], ARGV[9])
if before then
  redis.pcall('EXPIRE', KEYS[9], 120) -- a write, because the caller waits until replicas have received its last write
  return type(before) == 'table' and before or (receipt == '' and 1 or 2)
end
local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'building' then
  return 1
end
if ARGV[10] == '1' then
  redis.call('DEL', KEYS[10]) -- comes first: after a DEL, even a full Redis allows the writes below
end
local filled = { [''] = true }
for i = 11, #ARGV, 3 do
  redis.call('HSET', KEYS[1] .. ARGV[i], ARGV[i + 1], ARGV[i + 2])
  filled[ARGV[i]] = true
end
local is_last = ARGV[5] ~= ''
if receipt ~= '' then
  is_last = redis.call('HINCRBY', KEYS[1], 'parts', 1) == tonumber(ARGV[8])
  redis.call('ZADD', KEYS[8], whole(now_s), receipt)
  local old = redis.call('ZRANGE', KEYS[8], '-inf', whole(now_s - tonumber(ARGV[4])), 'BYSCORE', 'LIMIT', 0, 100)
  if #old > 0 then
    redis.call('ZREM', KEYS[8], unpack(old))
  end
elseif not redis.call('HGET', KEYS[1], 'state') then -- the earlier parts of the workflow have expired
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[9], ARGV[9] .. ':', 'EX', 120)
if not is_last then
  for suffix in pairs(filled) do
    redis.call('EXPIRE', KEYS[1] .. suffix, ARGV[4])
  end
  return 1
end
redis.call('PERSIST', KEYS[1])
for i in string.gmatch(redis.call('HGET', KEYS[1], 'held') or '', '%d+') do
  redis.call('PERSIST', KEYS[1] .. ':h' .. i)
end
redis.call('HSET', KEYS[1], 'state', 'running', 'created', whole(now_ms))
redis.call('ZADD', KEYS[2], whole(now_s), ARGV[3])
if redis.call('HGET', KEYS[1], 'streams') then
  redis.call('ZADD', ARGV[2] .. 'wf-open', whole(now_s + 60), ARGV[3])
end
flow.open(KEYS[1])
flow.begin(ARGV[5])
return flow.with_steps(1)
