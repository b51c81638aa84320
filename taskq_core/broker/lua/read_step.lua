--[[
  read_step: read the result of a workflow step, or a page of the members of a group. Changes nothing.

  KEYS[1]  hash    the workflow
  ARGV[1]  string  number of the node
  ARGV[2]  int     number of the first member
  ARGV[3]  int     maximum number of members to read
  ARGV[4]  int     maximum number of bytes to read of a result
  ARGV[5]  int     1 to read failed members only (any of them if there are more than the maximum), else 0

  The hash `<W>:h<node>` contains the packed task of each member that is not enqueued yet or has another queue; see
  `_flow`.

  A result that was too large to store ("!<size> <limit>") is returned as ''. The failure of a member, or the field
  `e<node>` of a step, contains the reason.

  returns  nothing if the workflow does not exist. For a step: result, size of the result (bytes). For a group, per
           member: number, 'd' succeeded / 'f' failed, failure, id if it is not derived from the number, queue if the
           member is not enqueued yet or has another queue, result, size of the result (bytes); each '' if missing
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
      if k and not known[k] then -- skip a repetition, because HSCAN may return a member twice
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
