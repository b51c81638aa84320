--[[
  fetch_steps: read steps that are to be sent to other queues, and start further members of groups.

  KEYS[1]  list    pending tasks of the home queue
  KEYS[2]  zset    scheduled
  KEYS[3]  list    wake tokens
  KEYS[4]  zset    steps that were started
  KEYS[5]  zset    what is to be started elsewhere
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3..]        members of KEYS[5]

  returns  now (Unix s), then per step to send: member of KEYS[5], queue, task id, step, message, start, receipt
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
redis.call('LLEN', KEYS[1]) -- keys of another type are refused here, before the first write
redis.call('ZCARD', KEYS[2])
redis.call('LLEN', KEYS[3])
redis.call('ZCARD', KEYS[4])
redis.call('ZCARD', KEYS[5])
local flow = workflows(ARGV[2], { s = now_s, ns = now_ns, ms = now_ms })
local reply, bytes = { whole(now_s) }, 0
for at = 3, #ARGV do
  local member = ARGV[at]
  local kind, workflow_id, node = string.match(member, '^(%a) (%S+) (%S+)$')
  local is_there = kind and redis.call('ZSCORE', KEYS[5], member) and flow.open(ARGV[2] .. 'wf:' .. workflow_id)
  if is_there and kind == 's' then
    local id, step, message, start, queue, problem, receipt = flow.message_of(node)
    if message then
      for _, word in ipairs({ member, queue, id, step, message, start, receipt }) do
        reply[#reply + 1] = word
      end
      bytes = bytes + #message
    else
      redis.call('ZREM', KEYS[5], member) -- cancelled, sent before, or too large
      if problem then
        flow.ended(node, 'f', nil, problem)
      end
    end
  else
    redis.call('ZREM', KEYS[5], member)
    local i, first = string.match(node or '', '^(%d+)%.(%d+)$')
    if is_there and kind == 'r' and i then
      flow.release(i, tonumber(first))
    end
  end
  if bytes >= 1048576 then
    break
  end
end
return reply
