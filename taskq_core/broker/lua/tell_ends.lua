--[[
  tell_ends: tell workflows of this queue how steps of theirs have ended in other queues. A repeat changes nothing.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  zset    scheduled
  KEYS[3]  list    wake tokens
  KEYS[4]  zset    steps that were started
  KEYS[5]  zset    what is to be started elsewhere
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3..]        per step: key of the workflow, node, how it ended: 'd' done and '=' and its result if there is one,
                   'f' and why it failed

  returns  1 if there is more to carry, else 0
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
for i = 3, #ARGV, 3 do
  if string.sub(ARGV[i], 1, #ARGV[2] + 3) == ARGV[2] .. 'wf:' and flow.open(ARGV[i]) then
    local state, rest = string.sub(ARGV[i + 2], 1, 1), string.sub(ARGV[i + 2], 2)
    if state == 'd' then
      flow.ended(ARGV[i + 1], 'd', string.sub(rest, 1, 1) == '=' and string.sub(rest, 2) or nil)
    else
      flow.ended(ARGV[i + 1], 'f', nil, rest)
    end
  end
end
return flow.has_to_carry and 1 or 0
