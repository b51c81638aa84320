--[[
  retry_steps: run steps of a workflow that failed again, and let what was skipped for their sake wait again.

  KEYS[1]  hash    the workflow
  KEYS[2..6]     keys that starting a step may touch: pending, scheduled, wake tokens, started steps, outbox
  KEYS[7]  zset    archived
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  string  number of a node
  ARGV[4]  string  '' for a step; of a group where to go on among its failed members, '0' at the start
  ARGV[5]  string  name of the node

  returns  where to go on, '0' at the end, and how many steps are run again
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
check('ZCARD', KEYS[7])
local state = redis.call('HGET', KEYS[1], 'state')
if (state ~= 'failed' and state ~= 'running') or not flow.open(KEYS[1]) then
  return { '0', 0 }
end
if ARGV[4] == '' then
  return { '0', flow.retry(ARGV[3]) and 1 or 0 }
end
local cursor, count = flow.retry_members(ARGV[3], ARGV[4], ARGV[5])
return { cursor, count }
