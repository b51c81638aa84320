--[[
  record_target: record in the home queue of workflows that steps of these workflows are copied to another queue.
  This script is called before the other queue stores the copies. So the dispatcher also reads that queue, and a
  cancellation reaches the steps.

  KEYS[1]  set     queues, other than the home queue, that received steps
  ARGV[1]  string  prefix of the queue's taskq-only keys
  ARGV[2]  string  name of the other queue
  ARGV[3..]        keys of workflows

  A repeated call changes nothing.

  returns  ids of the workflows among them that were cancelled
]]
redis.call('SCARD', KEYS[1]) -- raises an error, before the first write, if the key has another type
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
