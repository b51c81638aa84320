--[[
  survey: scan the keys of one server that match a pattern, and return the facts by which tools find damage. Changes
  nothing.

  ARGV[1]  string  cursor of the scan over all keys: '0' to begin, then the one that the previous call returned
  ARGV[2]  string  pattern of the keys
  ARGV[3]  int     approximate number of keys to scan (at most 500)

  For an undamaged task (a hash without expiry) only its queue is returned. Keys that the Redis user may not read are
  left out.

  returns  the next cursor ('0' at the end), the queues of undamaged tasks (as key prefixes up to 't:'), then per other
           key: key, type, ms until it expires (-1 never), and
             for a unique lock  '0' if its task does not exist or may not hold it, '2' if its task holds it under a taskq
                                lock rule, else '1'; followed by the id of the task
             for a counter      '1' if it is a whole number, else '0'
             for a zset         the number of members with the score +inf
             else               ''
]]
-- include _held
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local heads, known, rows = {}, {}, {}

local function about(key, kind)
  if kind == 'zset' then
    local count = redis.pcall('ZCOUNT', key, '+inf', '+inf')
    return type(count) == 'number' and string.format('%.0f', count) or ''
  end
  local head, rest = string.match(key, '^(.-{.-}:)(.*)$')
  if not rest then
    return ''
  elseif kind == 'string' and string.sub(rest, 1, 7) == 'unique:' then
    local holder = redis.pcall('GET', key)
    if type(holder) ~= 'string' then
      return ''
    end
    local task = head .. 't:' .. holder
    local is_ruled = type(redis.pcall('HGET', task, 'taskq_unique')) == 'string'
    return (not is_held(key, task) and '0' or is_ruled and '2' or '1') .. holder
  elseif kind == 'string' and (string.match(rest, '^processed') or string.match(rest, '^failed')) then
    local value = redis.pcall('GET', key)
    return type(value) == 'string' and string.match(value, '^%-?%d+$') and '1' or '0'
  end
  return ''
end

for _, key in ipairs(page[2]) do
  local kind = redis.pcall('TYPE', key)
  kind = kind.ok or 'none' -- the Redis user may not read the key
  local ttl = kind ~= 'none' and redis.pcall('PTTL', key) or -2
  local head = string.match(key, '^(.-{.-}:)t:')
  if head and kind == 'hash' and ttl == -1 then
    if not known[head] and not string.find(key, '}:', #head + 1, true) then
      known[head] = true
      heads[#heads + 1] = head
    end
  elseif kind ~= 'none' and type(ttl) == 'number' and ttl ~= -2 then
    for _, word in ipairs({ key, kind, string.format('%.0f', ttl), about(key, kind) }) do
      rows[#rows + 1] = word
    end
  end
end
return { page[1], heads, rows }
