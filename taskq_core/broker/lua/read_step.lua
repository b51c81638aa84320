--[[
  read_step: read what a step of a workflow returned, or some members of a group.

  KEYS[1]  hash    the workflow
  ARGV[1]  string  number of the node
  ARGV[2]  int     number of the first member
  ARGV[3]  int     how many members to read at most
  ARGV[4]  int     most bytes that are read of a result
  ARGV[5]  int     1 for members that have failed alone, some of them if there are more than are read at most

  A member that waits to be enqueued, or whose queue is another one, has what it enqueues in `<W>:h<node>`: see `_flow`.

  A result that was not stored because it is too large, "!<size> <limit>", reads as ''. The failure of a member says
  why; for a step, `e<node>` does.

  returns  nothing if the workflow does not exist; the result of a step and its size in bytes; of a group per
           member its number, 'd' if it has succeeded, 'f' if it has failed, its failure, its id if that is not made of its number,
           its queue if it waits or that is another one, what it returned, and how many bytes that has; '' for what
           there is not
]]
local W, i = KEYS[1], ARGV[1]
local first, most = tonumber(ARGV[2]), tonumber(ARGV[4])
local function stored(result)
  local size, limit = string.match(result or '', '^!(%d+) (%d+)$')
  return size and '' or result or '', size, limit
end

local facts = redis.call('HMGET', W, 'state', 'gt' .. i)
if not facts[1] or facts[1] == 'building' then
  return false
end
if not facts[2] then
  local result = stored(redis.call('HGET', W, 'r' .. i))
  return { string.sub(result, 1, most), #result, {} }
end
local found = {}
local count, wanted = tonumber(ARGV[3]), {}
if ARGV[5] == '1' then
  local cursor, known = '0', {}
  repeat
    local page = redis.call('HSCAN', W .. ':f' .. i, cursor, 'COUNT', count)
    cursor = page[1]
    for at = 1, #page[2], 2 do
      local k = tonumber(page[2][at])
      if k and not known[k] then -- a scan may come by one twice
        known[k] = true
        wanted[#wanted + 1] = k
      end
    end
  until cursor == '0' or #wanted >= count
  table.sort(wanted)
else
  for k = first, math.min(first + count, tonumber(facts[2]) or 0) - 1 do
    wanted[#wanted + 1] = k
  end
end
for at = 1, math.min(#wanted, count) do
  local member = string.format('%.0f', wanted[at])
  local packed = redis.call('HGET', W .. ':h' .. i, member)
  local queue = packed and string.match(packed, '^%S+ %a %S+ ([^\n]+)\n') or ''
  local result, size, limit = stored(redis.call('HGET', W .. ':g' .. i, member))
  local failure = redis.call('HGET', W .. ':f' .. i, member)
  found[#found + 1] = {
    wanted[at],
    failure and 'f' or redis.call('GETBIT', W .. ':d' .. i, member) == 1 and 'd' or '',
    failure or size and 'its result was not stored: ' .. size .. ' bytes, and the limit is ' .. limit or '',
    redis.call('HGET', W .. ':x' .. i, 'n' .. member) or '',
    queue,
    string.sub(result, 1, most),
    #result,
  }
end
return { '', 0, found }
