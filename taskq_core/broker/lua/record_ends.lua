--[[
  record_ends: record in workflows of this home queue how steps of these workflows ended in other queues. A repeated
  call changes nothing.

  KEYS[1..5]     keys needed to start a step: pending, scheduled, wake tokens, started steps, outbox
  KEYS[6]  string  key that never exists
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3..]        per step: key of the workflow, node, outcome: 'd' (done), 'd=<result>', or 'f<reason of the failure>'.
                   Optionally preceded by the key of the workflow, 'run', and the `traceparent` of the run

  returns  1 if the dispatcher has more to do, else 0
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
redis.call('DEL', KEYS[6]) -- comes first: after a DEL, even a full Redis allows the writes below
for i = 3, #ARGV, 3 do
  if string.sub(ARGV[i], 1, #ARGV[2] + 3) == ARGV[2] .. 'wf:' and flow.open(ARGV[i]) then
    local state, rest = string.sub(ARGV[i + 2], 1, 1), string.sub(ARGV[i + 2], 2)
    if ARGV[i + 1] == 'run' then
      flow.run = #ARGV[i + 2] == 55 and ARGV[i + 2] or nil
    else
      if state == 'd' then
        flow.ended(ARGV[i + 1], 'd', string.sub(rest, 1, 1) == '=' and string.sub(rest, 2) or nil)
      else
        flow.ended(ARGV[i + 1], 'f', nil, rest)
      end
      flow.run = nil
    end
  end
end
return flow.with_steps(flow.has_ends_to_send and 1 or 0)
