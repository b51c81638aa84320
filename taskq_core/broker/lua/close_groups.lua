--[[
  close_groups: no further members are added to the groups of a workflow that are open.

  KEYS[1]  hash    the workflow
  KEYS[2]  list    pending tasks of its home queue
  KEYS[3]  zset    scheduled
  KEYS[4]  list    wake tokens
  KEYS[5]  zset    steps that were started
  KEYS[6]  zset    what is to be sent to other queues
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  string  why a group stays incomplete, which is a failure of it; '' it is complete
  ARGV[4]  int     1: only if whoever adds members is taken for dead
  ARGV[5]  string  id of the workflow

  returns  number of groups that were closed
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
local until_s = tonumber(redis.call('ZSCORE', ARGV[2] .. 'wf-open', ARGV[5]) or '')
if ARGV[4] == '1' and not (until_s and until_s < now_s) then
  return 0
end
redis.call('ZREM', ARGV[2] .. 'wf-open', ARGV[5])
local flow = workflows(ARGV[2], { s = now_s, ns = now_ns, ms = now_ms })
if not flow.open(KEYS[1]) then
  return 0
end
local closed = 0
for i in string.gmatch(redis.call('HGET', KEYS[1], 'streams') or '', '%d+') do
  closed = closed + (flow.close(i, ARGV[3]) and 1 or 0)
end
return closed
