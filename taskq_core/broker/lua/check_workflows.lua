--[[
  check_workflows: list the unfinished steps of running workflows that are missing in the list of started steps, so that
  their workflows would never learn of their ends. Changes nothing.

  KEYS[1]  zset    running workflows
  KEYS[2]  zset    started steps
  KEYS[3]  zset    outbox: steps to send to other queues
  ARGV[1]  string  prefix of the queue's taskq-only keys
  ARGV[2]  int     number of running workflows to skip
  ARGV[3]  int     maximum number of workflows to read
  ARGV[4]  int     maximum number of members of a group to look at

  A step in another queue is always returned, unless the outbox contains it, because this queue does not list it.

  returns  number of workflows read, then per step: its queue, '' for this one, and the field taskq_step
]]
local own = ARGV[1]
local base, tag = string.match(own, '^([^{]*taskq:)({.*}:)$')
local prefix = (base == 'taskq:' and 'asynq:' or string.sub(base, 1, -7)) .. tag
local reply = { 0 }

local function add(id, W, node, packed)
  local task, flag, queue = string.match(packed or '', '^(%S+) (%a) %S+ ([^\n]+)\n')
  if not task or redis.call('ZSCORE', KEYS[3], 's ' .. id .. ' ' .. node) then
    return
  end
  local step = node .. ' ' .. flag .. ' ' .. task .. ' ' .. W
  local is_here = own == base .. '{' .. queue .. '}:'
  if not is_here or not redis.call('ZSCORE', KEYS[2], step) then
    reply[#reply + 1] = is_here and '' or queue
    reply[#reply + 1] = step
  end
end

-- add_members: add the missing members of a started group. The packed task of a member of this queue was deleted when the
-- member was enqueued.
local function add_members(id, W, i, name)
  local total = tonumber(redis.call('HGET', W, 'gt' .. i)) or 0
  for k = 0, math.min(total, tonumber(ARGV[4])) - 1 do
    local node = i .. '.' .. string.format('%.0f', k)
    if redis.call('GETBIT', W .. ':d' .. i, k) == 0 then
      local packed = redis.call('HGET', W .. ':h' .. i, k)
      local task = redis.call('HGET', W .. ':x' .. i, 'n' .. k) or id .. '.' .. name .. '.' .. string.format('%.0f', k)
      local step = not packed and redis.pcall('HGET', prefix .. 't:' .. task, 'taskq_step')
      if packed then
        add(id, W, node, packed)
      elseif type(step) ~= 'string' or string.sub(step, 1, #node + 1) ~= node .. ' ' then
        step = node .. ' t ' .. task .. ' ' .. W
      end
      if not packed and not redis.call('ZSCORE', KEYS[2], step) then
        reply[#reply + 1] = ''
        reply[#reply + 1] = step
      end
    end
  end
end

local ids = redis.call('ZRANGE', KEYS[1], ARGV[2], tonumber(ARGV[2]) + tonumber(ARGV[3]) - 1)
for _, id in ipairs(ids) do
  local W = own .. 'wf:' .. id
  local names, i = {}, 0
  local found = redis.pcall('HSCAN', W, 0, 'MATCH', 'n:*', 'COUNT', 1000000)
  for at = 1, #(found[2] or {}), 2 do
    names[found[2][at + 1]] = string.sub(found[2][at], 3)
  end
  while not found.err do
    local number = string.format('%.0f', i)
    local state = redis.call('HGET', W, 's' .. number)
    if not state then
      break
    elseif names[number] and state == 'p' then
      -- while the outbox has further members to release, these have not started
      local is_released = true
      for _, member in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
        is_released = is_released and string.sub(member, 1, 4 + #id + #number) ~= 'r ' .. id .. ' ' .. number .. '.'
      end
      if is_released then
        add_members(id, W, number, names[number])
      end
    elseif not names[number] and (state == 'p' or state == 'h') then
      add(id, W, number, redis.call('HGET', W, 'm' .. number))
    end
    i = i + 1
  end
end
reply[1] = #ids
return reply
