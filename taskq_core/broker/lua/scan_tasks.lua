--[[
  scan_tasks: read the next page of a list or sorted set of tasks. Sorted sets are read completely even if tasks are
  added and removed between pages. Changes nothing.

  KEYS[1]  list or zset of a state
  ARGV[1]  string  'list' (from the left: the newest first), 'zset' (from the lowest score) or 'reversed' (a zset from
                   the highest score)
  ARGV[2]  string  list: number of tasks to skip; zset: score of the last task of the previous page, '' to begin
  ARGV[3]  string  zset: id of the last task of the previous page
  ARGV[4]  int     maximum number of tasks to read (at most 1000)
  ARGV[5]  string  prefix of task keys, or '' to read ids only
  ARGV[6]  int     total bytes of messages and results after which no further task is read
  ARGV[7]  int     largest message, and largest result, to read, see `_message` and `_fields`

  In a sorted set the next page begins after (score, id), reversed before it, whether or not that task still exists. In a
  list, added tasks shift the others, so some are read twice, and removed tasks shift the others back, so some may be
  missed.

  returns  number of tasks, 1 if this was the last page, then per task: id, score ('' in a list) and, with a prefix,
           message, result, "<size> <limit>" of a result that was too large to store or to read, pending_since (Unix ns),
           generation, see `_generation` (each '' if missing)
]]
-- include _message
-- include _fields
local function is_after(one, other) -- compares bytes, as Redis does. Lua's own comparison depends on the locale
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then
      return a > b
    end
  end
  return #one > #other
end

local function seek(score, member) -- returns the number of tasks before (score, member), and 1 if that task exists
  local at = redis.call('ZSCORE', KEYS[1], member)
  if at and tonumber(at) == tonumber(score) then
    return redis.call('ZRANK', KEYS[1], member), 1
  end
  local low = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. score)
  local high = redis.call('ZCOUNT', KEYS[1], '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_after(redis.call('ZRANGE', KEYS[1], middle, middle)[1], member) then
      high = middle
    else
      low = middle + 1
    end
  end
  return low, 0
end

local count = math.min(tonumber(ARGV[4]), 1000)
local size, found, step, first
if ARGV[1] == 'list' then
  size, step, first = redis.call('LLEN', KEYS[1]), 1, tonumber(ARGV[2])
  found = redis.call('LRANGE', KEYS[1], first, first + count - 1)
else
  size, step = redis.call('ZCARD', KEYS[1]), 2
  local is_reversed = ARGV[1] == 'reversed'
  first = 0
  if ARGV[2] ~= '' then
    local before, is_there = seek(ARGV[2], ARGV[3])
    first = is_reversed and size - before or before + is_there
  end
  found = redis.call(is_reversed and 'ZREVRANGE' or 'ZRANGE', KEYS[1], first, first + count - 1, 'WITHSCORES')
end
local reply, bytes, read = { size, 0 }, 0, 0
for i = 1, #found, step do
  reply[#reply + 1] = found[i]
  reply[#reply + 1] = step == 2 and found[i + 1] or ''
  read = read + 1
  if ARGV[5] ~= '' then
    local fields = fields_of(
      ARGV[5] .. found[i], tonumber(ARGV[7]), tonumber(ARGV[7]), 'pending_since', 'taskq_generation', 'taskq_steps'
    )
    for field = 1, 4 do
      reply[#reply + 1] = fields[field] or ''
      bytes = bytes + #reply[#reply]
    end
    reply[#reply + 1] = fields[5] or fields[6] or ''
    if bytes >= tonumber(ARGV[6]) then
      break
    end
  end
end
reply[2] = first + read >= size and 1 or 0
return reply
