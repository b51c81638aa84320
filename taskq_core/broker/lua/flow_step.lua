--[[
  flow_step: read what a step of a workflow returned, or some members of a group.

  KEYS[1]  hash    the workflow
  ARGV[1]  string  number of the node
  ARGV[2]  int     number of the first member
  ARGV[3]  int     how many members to read at most
  ARGV[4]  int     most bytes that are read of a result

  A member that waits to be enqueued, or whose queue is another one, has what it enqueues in `<W>:h<node>`: see `_flow`.

  returns  nothing if there is no such workflow; what a step returned, and how many bytes that has; of a group per
           member 'd' if it has succeeded, 'f' if it has failed, its failure, its id if that is not made of its number,
           its queue if it waits or that is another one, what it returned, and how many bytes that has; '' for what
           there is not
]]
local W, i = KEYS[1], ARGV[1]
local first, most = tonumber(ARGV[2]), tonumber(ARGV[4])
local facts = redis.call('HMGET', W, 'state', 'gt' .. i)
if not facts[1] or facts[1] == 'building' then
  return false
end
if not facts[2] then
  local result = redis.call('HGET', W, 'r' .. i) or ''
  return { string.sub(result, 1, most), #result, {} }
end
local found = {}
local last = math.min(first + tonumber(ARGV[3]), tonumber(facts[2]) or 0) - 1
for k = first, last do
  local member = string.format('%.0f', k)
  local packed = redis.call('HGET', W .. ':h' .. i, member)
  local queue = packed and string.match(packed, '^%S+ %a %S+ ([^\n]+)\n') or ''
  local result = redis.call('HGET', W .. ':g' .. i, member) or ''
  local failure = redis.call('HGET', W .. ':f' .. i, member)
  found[#found + 1] = {
    failure and 'f' or redis.call('GETBIT', W .. ':d' .. i, member) == 1 and 'd' or '',
    failure or '',
    redis.call('HGET', W .. ':x' .. i, 'n' .. member) or '',
    queue,
    string.sub(result, 1, most),
    #result,
  }
end
return { '', 0, found }
