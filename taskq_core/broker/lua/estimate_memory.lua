--[[
  estimate_memory: estimate how much memory the tasks of a queue use. Changes nothing.

  KEYS[1..6]  active, pending, scheduled, retry, archived, completed
  KEYS[7]     set     names of groups with members
  ARGV[1]     string  prefix of the queue's keys
  ARGV[2]     int     tasks to sample in each structure

  The script measures the first tasks of each structure and multiplies their mean by the number of tasks. For groups it
  measures the tasks of five groups. In a queue with more than 1000 groups it counts the members of 1000 groups only.

  returns  estimated number of bytes
]]
local function measure(ids)
  local bytes, known = 0, 0
  for _, id in ipairs(ids) do
    local used = redis.call('MEMORY', 'USAGE', ARGV[1] .. 't:' .. id)
    if used then
      bytes, known = bytes + used, known + 1
    end
  end
  return bytes, known
end

local total, last = 0, tonumber(ARGV[2]) - 1
for number = 1, 6 do
  local is_list = number <= 2
  local size = redis.call(is_list and 'LLEN' or 'ZCARD', KEYS[number])
  if size > 0 then
    local bytes, known = measure(redis.call(is_list and 'LRANGE' or 'ZRANGE', KEYS[number], 0, last))
    if known > 0 then
      total = total + bytes / known * size
    end
    total = total + redis.call('MEMORY', 'USAGE', KEYS[number])
  end
end
local names = redis.call('SCARD', KEYS[7])
if names > 0 then
  local groups = names > 1000 and redis.call('SRANDMEMBER', KEYS[7], 1000) or redis.call('SMEMBERS', KEYS[7])
  local size, bytes, known = 0, 0, 0
  for i, group in ipairs(groups) do
    local members = ARGV[1] .. 'g:' .. group
    local count = redis.pcall('ZCARD', members)
    local is_group = type(count) == 'number' -- pcall: skip a group whose key has another type
    size = size + (is_group and count or 0)
    if i <= 5 and is_group then
      local more, counted = measure(redis.call('ZRANGE', members, 0, last))
      bytes, known = bytes + more, known + counted
    end
  end
  if known > 0 then
    total = total + bytes / known * size * names / #groups
  end
end
return math.floor(total)
