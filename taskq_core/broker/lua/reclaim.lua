--[[
  reclaim: move the members of expired aggregation sets back to their groups. Only the worker that leads this service
  moves members.

  KEYS[1]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[2]  set     names of groups with members
  KEYS[3]  zset    combined sets: id of a set whose members must still be deleted, by time (Unix s)
  KEYS[4]  string  token of the worker that leads
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of this worker
  ARGV[3]  int     ms the leader's lease lasts
  ARGV[4]  string  prefix of the queue's keys
  ARGV[5]  int     maximum number of sets to check (at most 100)
  ARGV[6]  int     maximum number of members to move one by one (at most 100). If the group has no members, the set is
                   renamed instead

  A set that is moved in several calls stays in KEYS[1] until it is empty. Each member is always in exactly one place.

  returns  1 if this worker leads / 0 if another does, then numbers: sets returned, members moved one by one, entries
           dropped because their set does not exist, entries postponed because the key of the group is not a zset, sets
           that `sweep` has to delete
]]
-- include _check
-- include _clock
-- include _lead
local now_s = clock(ARGV[1])
check('ZCARD', KEYS[1], KEYS[3])
check('SCARD', KEYS[2])
if not lead(KEYS[4], ARGV[2], ARGV[3]) then
  return { 0, 0, 0, 0, 0, 0 }
end
local prefix, limit = ARGV[4] .. 'g:', tonumber(ARGV[6])
local given, moved, dropped, put_off = 0, 0, 0, 0
local sets = redis.call('ZRANGE', KEYS[1], '-inf', whole(now_s), 'BYSCORE', 'LIMIT', 0, ARGV[5])
for _, set in ipairs(sets) do
  local name = nil
  if string.sub(set, 1, #prefix) == prefix then
    name = string.match(string.sub(set, #prefix + 1), '^(.+):[^:]*$')
  end
  local size = name and redis.pcall('ZCARD', set)
  local waiting = name and redis.pcall('ZCARD', prefix .. name)
  if type(size) ~= 'number' or size == 0 then
    redis.call('ZREM', KEYS[1], set)
    dropped = dropped + 1
  elseif type(waiting) ~= 'number' then
    -- try this set again in a minute, so that other sets are not delayed
    redis.call('ZADD', KEYS[1], whole(now_s + 60), set)
    put_off = put_off + 1
  elseif waiting == 0 then
    redis.call('RENAME', set, prefix .. name)
    redis.call('SADD', KEYS[2], name)
    redis.call('ZREM', KEYS[1], set)
    given = given + 1
  elseif moved < limit then
    local members = redis.call('ZRANGE', set, 0, limit - moved - 1, 'WITHSCORES')
    for i = 1, #members, 2 do
      redis.call('ZADD', prefix .. name, members[i + 1], members[i])
      redis.call('ZREM', set, members[i])
    end
    moved = moved + #members / 2
    redis.call('SADD', KEYS[2], name)
    if #members / 2 == size then
      redis.call('ZREM', KEYS[1], set)
      given = given + 1
    end
  end
end
return { 1, given, moved, dropped, put_off, redis.call('ZCARD', KEYS[3]) }
