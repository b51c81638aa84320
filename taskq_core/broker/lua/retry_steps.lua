--[[
  retry_steps: run steps of a workflow that failed again, and let what was skipped for their sake wait again.

  KEYS[1]  hash    the workflow
  KEYS[2]  list    pending tasks of its home queue
  KEYS[3]  zset    scheduled
  KEYS[4]  list    wake tokens
  KEYS[5]  zset    steps that were started
  KEYS[6]  zset    what is to be sent to other queues
  KEYS[7]  zset    archived
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  string  number of a node
  ARGV[4]  string  '' for a step; of a group where to go on among its failed members, '0' at the start
  ARGV[5]  string  name of the node

  returns  where to go on, '0' at the end, and how many steps are run again
]]
-- include _clock
-- include _lock
-- include _marks
-- include _place
-- include _unique
-- include _store
-- include _wake
-- include _flow
local now_s, now_ns, now_ms = clock(ARGV[1])
redis.call('LLEN', KEYS[2]) -- keys of another type are refused here, before the first write
redis.call('ZCARD', KEYS[3])
redis.call('LLEN', KEYS[4])
redis.call('ZCARD', KEYS[5])
redis.call('ZCARD', KEYS[6])
redis.call('ZCARD', KEYS[7])
local flow = workflows(ARGV[2], { s = now_s, ns = now_ns, ms = now_ms })
local state = redis.call('HGET', KEYS[1], 'state')
if (state ~= 'failed' and state ~= 'running') or not flow.open(KEYS[1]) then
  return { '0', 0 }
end
if ARGV[4] == '' then
  return { '0', flow.retry(ARGV[3]) and 1 or 0 }
end
local cursor, count = flow.retry_members(ARGV[3], ARGV[4], ARGV[5])
return { cursor, count }
