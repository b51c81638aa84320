--[[
  retry_steps: run failed steps of a workflow again. Steps that were skipped because of these failures wait again.

  KEYS[1]  hash    the workflow
  KEYS[2..6]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  KEYS[7]  zset    archived
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  string  number of a node
  ARGV[4]  string  '' for a step; for a group the cursor among its failed members: '0' to begin, then the one that the
                   previous call returned
  ARGV[5]  string  name of the node

  returns  the next cursor ('0' at the end), number of steps that run again
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
check('ZCARD', KEYS[7])
local state = redis.call('HGET', KEYS[1], 'state')
if (state ~= 'failed' and state ~= 'running') or not flow.open(KEYS[1]) then
  return { '0', 0 }
end
if ARGV[4] == '' then
  return flow.with_steps({ '0', flow.retry(ARGV[3]) and 1 or 0 })
end
local cursor, count = flow.retry_members(ARGV[3], ARGV[4], ARGV[5])
return flow.with_steps({ cursor, count })
