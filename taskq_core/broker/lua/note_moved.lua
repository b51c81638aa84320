--[[
  note_moved: note at home that steps of its workflows are moved to another queue, so that their end is noticed there,
  and they are dropped there once the workflow is cancelled. Before they arrive; a repeat changes nothing.

  KEYS[1]  set     queues other than this that steps were sent to
  ARGV[1]  string  what the own keys of the queue begin with
  ARGV[2]  string  name of the other queue
  ARGV[3..]        keys of workflows

  returns  ids of the cancelled workflows among them
]]
redis.call('SCARD', KEYS[1]) -- a key of another type is refused here, before the first write
local cancelled = {}
for at = 3, #ARGV do
  local state, id = redis.pcall('HGET', ARGV[at], 'state'), string.sub(ARGV[at], #ARGV[1] + 4)
  if type(state) == 'string' then
    redis.pcall('SADD', ARGV[at] .. ':q', ARGV[2])
    redis.call('SADD', KEYS[1], ARGV[2])
  elseif redis.call('EXISTS', ARGV[1] .. 'wf-cancelled:' .. id) == 1 then
    state = 'cancelled' -- and forgotten since
  end
  if state == 'cancelled' then
    cancelled[#cancelled + 1] = id
  end
end
return cancelled
