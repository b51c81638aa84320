--[[
  close_groups: no further members are added to the groups of a workflow that are open.

  KEYS[1]  hash    the workflow
  KEYS[2..6]     keys that starting a step may touch: pending, scheduled, wake tokens, started steps, outbox
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  string  why a group stays incomplete, which is a failure of it; '' it is complete
  ARGV[4]  int     1: only if the caller that adds members counts as dead
  ARGV[5]  string  id of the workflow

  returns  number of groups that were closed
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
return closed
