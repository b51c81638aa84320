--[[
  record_ends: record in workflows of this queue how their steps ended in other queues. A repeat changes nothing.

  KEYS[1..5]     keys that starting a step may touch: pending, scheduled, wake tokens, started steps, outbox
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3..]        per step: key of the workflow, node, how it ended: 'd' done and '=' and its result if there is one,
                   'f' and why it failed. Optionally preceded by the key, 'run', the `traceparent` of its run

  returns  1 if the dispatcher has more to do, else 0
]]
-- include _engine
local flow = engine(ARGV[2], ARGV[1])
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
return flow.has_ends_to_send and 1 or 0
