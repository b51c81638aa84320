--[[
  steps_sent: record that other queues have stored steps. A repeat changes nothing.

  KEYS[1]  zset    what is to be started elsewhere
  ARGV[1]  string  what the own keys of the queue begin with
  ARGV[2..]        per step: member of KEYS[1], its receipt

  returns  steps noted
]]
redis.call('ZCARD', KEYS[1]) -- a key of another type is refused here, before the first write
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
