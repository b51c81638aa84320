--[[
  check_listed: read a page of task ids from one list or set. Report the ids whose task is missing, or whose task has a
  state that does not belong to this list or set. Changes nothing.

  KEYS[1]  list or zset
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  list    active tasks
  ARGV[1]  string  'list', 'zset', 'members' (a zset of which all ids are returned), or 'lease' for the leases
  ARGV[2]  string  cursor: '0' to begin, then the one that the previous call returned
  ARGV[3]  int     approximate number of ids to read (2 to 500)
  ARGV[4]  string  prefix of task keys
  ARGV[5]  string  state that the tasks must have
  ARGV[6]  string  group that they must name, '' any
  ARGV[7]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[8]  int     longest time from now until the end of a worker's lease (s)

  A list is read from its left end, where tasks are added, so that no id moves past the reader unseen. Each call begins
  with the last id of the previous call, which shows the caller how far the rest has moved. An id is reported if:
    - its task is not a hash, has no message, or has another state or group;
    - its task is active and has no lease, or has a lease and is not active (checked for at most 10000 active tasks);
    - its lease ends later than any worker's lease can, or its time in a zset is infinite;
    - it is in an aggregation set and in its group as well.

  returns  the next cursor ('0' at the end), the reported ids, all ids that were read (only for 'list' and 'members')
]]
-- include _clock
local ids, all, cursor, is_far = {}, {}, '0', {}
if ARGV[1] == 'list' then
  local first, count = tonumber(ARGV[2]), tonumber(ARGV[3])
  ids = redis.call('LRANGE', KEYS[1], first, first + count - 1)
  all = ids
  cursor = #ids == count and string.format('%.0f', first + count - 1) or '0'
else
  local page = redis.call('ZSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
  cursor = page[1]
  local latest_s = ARGV[1] == 'lease' and clock(ARGV[7]) + tonumber(ARGV[8])
  for i = 1, #page[2], 2 do
    ids[#ids + 1] = page[2][i]
    local score = page[2][i + 1]
    is_far[page[2][i]] = latest_s and tonumber(score) > latest_s or ARGV[1] == 'zset' and score == 'inf'
  end
  if ARGV[1] == 'members' then
    all = ids
  end
end

local is_active
if ARGV[1] == 'lease' and #ids > 0 and redis.call('LLEN', KEYS[3]) <= 10000 then
  is_active = {}
  for _, id in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
    is_active[id] = true
  end
end
local group = ARGV[1] == 'members' and string.sub(ARGV[4], 1, -3) .. 'g:' .. ARGV[6]
if group and redis.call('TYPE', group).ok ~= 'zset' then
  group = false
end
local told = {}
for _, id in ipairs(ids) do
  local key = ARGV[4] .. id
  local fields = redis.pcall('HMGET', key, 'state', 'group')
  local state = fields[1]
  if
    state ~= ARGV[5]
    or (ARGV[6] ~= '' and fields[2] ~= ARGV[6])
    or (group and redis.call('ZSCORE', group, id))
    or redis.call('HSTRLEN', key, 'msg') == 0
    or (is_active and not is_active[id])
    or is_far[id]
    or (ARGV[1] == 'list' and state == 'active' and not redis.call('ZSCORE', KEYS[2], id))
  then
    told[#told + 1] = id
  end
end
return { cursor, told, all }
