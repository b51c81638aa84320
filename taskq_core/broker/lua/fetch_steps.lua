--[[
  fetch_steps: read the workflow steps that the dispatcher of a queue has to send to other queues. Also start further
  members of groups.

  KEYS[1..5]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3..]        members of the outbox (KEYS[5])

  returns  now (Unix s), then per step to send: member of the outbox, queue, task id, field taskq_step, message, start,
           receipt
]]
-- include _engine
local flow, now_s = engine(ARGV[2], ARGV[1])
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
      redis.call('ZREM', KEYS[5], member) -- the step was cancelled, was sent before or is too large
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
return flow.with_steps(reply)
