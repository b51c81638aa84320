--[[
  read_due: read the work of the workflow dispatcher of a queue, if this worker is its leader.

  KEYS[1]  string  token of the leader
  KEYS[2]  hash    outcomes of steps that ran here, for workflows whose home is another queue
  KEYS[3]  zset    outbox: steps to start in other queues
  KEYS[4]  zset    steps of workflows that were started here
  KEYS[5]  zset    workflows that still accept members: id by the second until which they do
  KEYS[6]  zset    running workflows
  KEYS[7]  set     other queues that steps were sent to
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of this worker, '' to read without being the leader
  ARGV[3]  int     ms the leader's lease lasts
  ARGV[4]  int     maximum number of items of each kind

  returns  0 alone if another worker leads. Otherwise, in this order:
             1
             the number of started steps (KEYS[4])
             the number of outcomes, then field and value of each (KEYS[2])
             the number of steps to start in other queues, then the steps (KEYS[3])
             the number of other queues, then their names (KEYS[7]); none while no workflow runs
             the ids of workflows that waited too long for members (KEYS[5])
]]
-- include _clock
-- include _lead
local now_s = clock(ARGV[1])
if ARGV[2] ~= '' and not lead(KEYS[1], ARGV[2], ARGV[3]) then
  return { 0 }
end
if redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]) == 0 then
  return { 1, 0, 0, 0, 0 } -- no workflow is running, which is the usual case
end
local reply = { 1, redis.call('ZCARD', KEYS[4]), 0 }
local notes = redis.call('HSCAN', KEYS[2], 0, 'COUNT', ARGV[4])[2]
reply[3] = #notes / 2
for _, word in ipairs(notes) do
  reply[#reply + 1] = word
end
local out = redis.call('ZRANGE', KEYS[3], 0, tonumber(ARGV[4]) - 1)
reply[#reply + 1] = #out
for _, word in ipairs(out) do
  reply[#reply + 1] = word
end
local queues = redis.call('ZCARD', KEYS[6]) > 0 and redis.call('SMEMBERS', KEYS[7]) or {}
reply[#reply + 1] = #queues
for _, word in ipairs(queues) do
  reply[#reply + 1] = word
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[5], '-inf', whole(now_s - 1), 'BYSCORE', 'LIMIT', 0, ARGV[4])) do
  reply[#reply + 1] = id
end
return reply
