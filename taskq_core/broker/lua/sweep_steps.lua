--[[
  sweep_steps: find started steps whose end was not reported to their workflow: tasks that a Go worker ran, or that a
  user deleted or archived.

  KEYS[1..5]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  KEYS[6]  zset    completed
  KEYS[7]  zset    archived
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  int     number of the oldest steps to skip
  ARGV[5]  int     number of steps to check (at most 500)

  returns  number of checked steps, number of ended steps found, 1 if outcomes must be sent to another queue
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
check('ZCARD', KEYS[6], KEYS[7])
local steps = redis.call('ZRANGE', KEYS[4], ARGV[4], tonumber(ARGV[4]) + tonumber(ARGV[5]) - 1)
local found = 0
for _, step in ipairs(steps) do
  local id = string.match(step, '^%S+ %a (%S+) ')
  local key = ARGV[3] .. 't:' .. (id or '')
  local fields = redis.pcall('HMGET', key, 'state', 'msg', 'taskq_copied')
  local state = fields[1]
  if not id then
    redis.call('ZREM', KEYS[4], step)
  elseif fields.err then
    state = 'active' -- the key is not a hash: leave the step alone
  elseif not fields[2] then
    flow.settled(step, 'g', key, '', '')
    found = found + 1
  elseif state == 'completed' and redis.call('ZSCORE', KEYS[6], id) then
    if flow.settled(step, 'c', key, fields[2], '') == 'd' then
      redis.call('ZREM', KEYS[6], id)
      redis.call('DEL', key)
    end
    found = found + 1
  elseif state == 'archived' and not is_copied(state, fields[2], fields[3]) and redis.call('ZSCORE', KEYS[7], id) then
    flow.settled(step, 'a', key, fields[2], '')
    found = found + 1
  end
end
return flow.with_steps({ #steps, found, flow.has_ends_to_send and 1 or 0 })
