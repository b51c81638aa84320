--[[
  sweep_steps: find ended steps whose workflow does not know it: tasks that a Go worker ran, or that a user
  deleted or archived.

  KEYS[1..5]     keys that starting a step may touch: pending, scheduled, wake tokens, started steps, outbox
  KEYS[6]  zset    completed
  KEYS[7]  zset    archived
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  int     first to look at, by rank
  ARGV[5]  int     how many to look at (at most 500)

  returns  steps looked at, ends found, 1 if ends must be sent to another queue
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
check('ZCARD', KEYS[6], KEYS[7])
local steps = redis.call('ZRANGE', KEYS[4], ARGV[4], tonumber(ARGV[4]) + tonumber(ARGV[5]) - 1)
local found = 0
for _, step in ipairs(steps) do
  local id = string.match(step, '^%S+ %a (%S+) ')
  local key = ARGV[3] .. 't:' .. (id or '')
  local fields = redis.pcall('HMGET', key, 'state', 'msg', 'taskq_moving')
  local state = fields[1]
  if not id then
    redis.call('ZREM', KEYS[4], step)
  elseif fields.err then
    state = 'active' -- the key is not a task
  elseif not fields[2] then
    flow.settled(step, 'g', key, '', '')
    found = found + 1
  elseif fields[3] then
    state = 'active' -- on its way to another queue
  elseif state == 'completed' and redis.call('ZSCORE', KEYS[6], id) then
    if flow.settled(step, 'c', key, fields[2], '') == 'd' then
      redis.call('ZREM', KEYS[6], id)
      redis.call('DEL', key)
    end
    found = found + 1
  elseif state == 'archived' and redis.call('ZSCORE', KEYS[7], id) then
    flow.settled(step, 'a', key, fields[2], '')
    found = found + 1
  end
end
return { #steps, found, flow.has_ends_to_send and 1 or 0 }
