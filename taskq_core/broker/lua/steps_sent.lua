--[[
  steps_sent: record that other queues have stored workflow steps, so that the dispatcher does not send these steps
  again. A repeated call changes nothing.

  KEYS[1]  zset    outbox: steps to start in other queues
  ARGV[1]  string  prefix of the queue's taskq-only keys
  ARGV[2..]        per step: member of KEYS[1], its receipt

  returns  number of recorded steps
]]
redis.call('ZCARD', KEYS[1]) -- raises an error, before the first write, if the key has another type
local noted = 0
for at = 2, #ARGV, 2 do
  local workflow_id, node = string.match(ARGV[at], '^s (%S+) (%S+)$')
  local key = ARGV[1] .. 'wf:' .. (workflow_id or '')
  local i, member = string.match(node or '', '^(%d+)(%.?)')
  local receipt = string.match(ARGV[at + 1], ' (%d+)$')
  if i and (redis.call('HGET', key, 'v' .. node) or '0') == receipt then
    noted = noted + redis.call('ZREM', KEYS[1], ARGV[at])
    if member == '' and redis.call('HGET', key, 's' .. i) == 'h' then
      redis.call('HSET', key, 's' .. i, 'p')
    end
  end
end
return noted
