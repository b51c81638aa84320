--[[
  read_due: if this worker leads the workflow dispatcher of a queue, read everything that the dispatcher has to send to
  other queues.

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

  returns  whether this worker leads (1 or 0). If it leads, also the number of started steps (KEYS[4]), the outcomes as
           field and value of each (KEYS[2]), the steps to start in other queues (KEYS[3]), the names of other queues
           (KEYS[7]; none while no workflow runs), and the ids of workflows that waited too long for members (KEYS[5])
]]
-- include _clock
-- include _lead
local now_s = clock(ARGV[1])
if ARGV[2] ~= '' and not lead(KEYS[1], ARGV[2], ARGV[3]) then
  return { 0 }
elseif redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]) == 0 then
  return { 1, 0, {}, {}, {}, {} } -- return early if no workflow is running, which is the usual case
end
return {
  1,
  redis.call('ZCARD', KEYS[4]),
  redis.call('HSCAN', KEYS[2], 0, 'COUNT', ARGV[4])[2],
  redis.call('ZRANGE', KEYS[3], 0, tonumber(ARGV[4]) - 1),
  redis.call('ZCARD', KEYS[6]) > 0 and redis.call('SMEMBERS', KEYS[7]) or {},
  redis.call('ZRANGE', KEYS[5], '-inf', whole(now_s - 1), 'BYSCORE', 'LIMIT', 0, ARGV[4]),
}
