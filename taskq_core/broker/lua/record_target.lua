--[[
  record_target: record in the home queue that steps of its workflows are being moved to another queue. It is called
  before they arrive, so that the dispatcher reads that queue too, and a cancellation reaches the steps there.

  KEYS[1]  set     queues, other than the home queue, that received steps
  ARGV[1]  string  prefix of the queue's taskq-only keys
  ARGV[2]  string  name of the other queue
  ARGV[3..]        keys of workflows

  A repeated call changes nothing.

  returns  ids of the workflows among them that were cancelled
]]
redis.call('SCARD', KEYS[1]) -- raises an error for a key of another type, before the first write
local cancelled = {}
for at = 3, #ARGV do
  local state, id = redis.pcall('HGET', ARGV[at], 'state'), string.sub(ARGV[at], #ARGV[1] + 4)
  if type(state) == 'string' then
    redis.pcall('SADD', ARGV[at] .. ':q', ARGV[2])
    redis.call('SADD', KEYS[1], ARGV[2])
  elseif redis.call('EXISTS', ARGV[1] .. 'wf-cancelled:' .. id) == 1 then
    state = 'cancelled' -- the workflow was cancelled and then deleted
  end
  if state == 'cancelled' then
    cancelled[#cancelled + 1] = id
  end
end
return cancelled
