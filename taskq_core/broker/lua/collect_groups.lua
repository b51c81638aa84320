--[[
  collect_groups: move the tasks of each group that is due into an aggregation set. A worker then combines the tasks of
  the set into one task.

  KEYS[1]  set     names of groups with members
  KEYS[2]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[3]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  int     maximum number of sets to make
  ARGV[4..]        per group (at most 100): name, id of its set, seconds from now until the set's deadline,
                   grace period (s), maximum wait of a member (s, 0 no limit), maximum number of members (0 no limit)

  A group is due when it has the maximum number of members, when its oldest member has waited for the maximum time, or
  when no member was added during the grace period. A repeated call makes no second set: it returns 1 for each set that
  the first call made.

  returns  one character per group:  1  set made   0  not due   x  the key is not a group
             2  not checked, because the maximum number of sets was made: send it again
]]
-- include _clock
local now_s = clock(ARGV[1])
local prefix, left = ARGV[2] .. 'g:', tonumber(ARGV[3])
redis.call('SCARD', KEYS[1]) -- raises an error, before the first write, if the key has another type
local sets = {}
for i = 4, #ARGV, 6 do
  sets[#sets + 1] = prefix .. ARGV[i] .. ':' .. ARGV[i + 1]
end
local made = #sets > 0 and redis.call('ZMSCORE', KEYS[2], unpack(sets)) or {}

local function is_due(group, size, grace_s, delay_s, most)
  if most > 0 and size >= most then
    return true
  end
  if delay_s > 0 and tonumber(redis.call('ZRANGE', group, 0, 0, 'WITHSCORES')[2]) <= now_s - delay_s then
    return true
  end
  return tonumber(redis.call('ZRANGE', group, -1, -1, 'WITHSCORES')[2]) <= now_s - grace_s
end

local codes = {}
for position, set in ipairs(sets) do
  local i = 4 + (position - 1) * 6
  local group, most = prefix .. ARGV[i], tonumber(ARGV[i + 5])
  local size = redis.pcall('ZCARD', group)
  local code = '0'
  if made[position] then
    code = '1'
    left = left - 1
  elseif type(size) == 'table' then
    code = 'x'
  elseif size == 0 then
    redis.call('SREM', KEYS[1], ARGV[i]) -- the next member of the group adds its name again
  elseif left <= 0 then
    code = '2'
  elseif is_due(group, size, tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), most) then
    code = '1'
    left = left - 1
    redis.call('DEL', KEYS[3]) -- comes first: after a DEL, even a full Redis allows the writes below
    if most == 0 or most >= size then
      redis.call('RENAME', group, set)
      redis.call('SREM', KEYS[1], ARGV[i])
    else
      redis.call('ZRANGESTORE', set, group, 0, most - 1)
      redis.call('ZREMRANGEBYRANK', group, 0, most - 1)
    end
    redis.call('ZADD', KEYS[2], whole(now_s + tonumber(ARGV[i + 2])), set)
  end
  codes[position] = code
end
return table.concat(codes)
