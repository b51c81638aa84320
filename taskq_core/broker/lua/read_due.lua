--[[
  read_due: read what the carrier of a queue has to do, if this worker leads it.

  KEYS[1]  string  token of the worker that leads
  KEYS[2]  hash    how steps of workflows at home elsewhere have ended
  KEYS[3]  zset    what is to be started elsewhere
  KEYS[4]  zset    steps that were started
  KEYS[5]  zset    workflows that are open for members: id by the second until which that is
  KEYS[6]  zset    workflows that run
  KEYS[7]  set     other queues that steps were sent to
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  token of this worker, '' to read under any leader
  ARGV[3]  int     ms the leader's lease lasts
  ARGV[4]  int     most of each kind

  returns  1 leads / 0 another does, number of steps that were started, number of pairs that follow, fields and values of
           the first hash, number of words that follow, members of the outbox, number of words that follow, while workflows
           run the other queues, ids of workflows whose time is over
]]
-- include _clock
-- include _lead
local now_s = clock(ARGV[1])
if ARGV[2] ~= '' and not lead(KEYS[1], ARGV[2], ARGV[3]) then
  return { 0 }
end
if redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]) == 0 then
  return { 1, 0, 0, 0, 0 } -- no workflow is under way, as in most queues at most times
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
