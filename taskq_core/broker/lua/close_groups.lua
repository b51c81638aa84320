--[[
  close_groups: close the open groups of a workflow, so that they accept no more members.

  KEYS[1]  hash    the workflow
  KEYS[2..6]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  string  reason why members are missing, with which the groups fail; '' if the groups are complete
  ARGV[4]  int     1 to close only if the caller that adds members counts as dead
  ARGV[5]  string  id of the workflow

  returns  number of closed groups
]]
-- include _engine
local flow, now_s = engine(ARGV[2], ARGV[1])
local until_s = tonumber(redis.call('ZSCORE', ARGV[2] .. 'wf-open', ARGV[5]) or '')
if ARGV[4] == '1' and not (until_s and until_s < now_s) then
  return 0
end
redis.call('ZREM', ARGV[2] .. 'wf-open', ARGV[5])
if not flow.open(KEYS[1]) then
  return 0
end
local closed = 0
for i in string.gmatch(redis.call('HGET', KEYS[1], 'streams') or '', '%d+') do
  closed = closed + (flow.close(i, ARGV[3]) and 1 or 0)
end
return flow.with_steps(closed)
