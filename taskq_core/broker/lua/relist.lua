--[[
  relist: add unlisted aggregation sets to the list of aggregation sets, and replace infinite deadlines. Without this, the members of an unlisted set
  would never return to their group.

  KEYS[1]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[2]  set     names of groups with members
  KEYS[3]  zset    aggregation sets of a queue that is being removed
  KEYS[4]  set     names of groups of a queue that is being removed
  KEYS[5]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  KEYS[6..] zset   the aggregation sets (at most 50)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  int     1 to add them, 0 only to report them
  ARGV[4]  int     number of sets

  The deadline of an added set is now, because the worker that made the set may have ended.

  returns  per set:  1  it was not listed   0  it is listed or does not exist
]]
-- include _clock
-- include _orphan
local now_s = clock(ARGV[1])
redis.call('ZCARD', KEYS[1]) -- this and the next calls raise an error if a key has another type
redis.call('SCARD', KEYS[2])
local codes = {}
for i = 6, 5 + tonumber(ARGV[4]) do
  local code = is_orphan(ARGV[2], KEYS[1], KEYS[2], { KEYS[3], KEYS[4] }, KEYS[i]) and '1' or '0'
  if code == '1' and ARGV[3] == '1' then
    redis.call('DEL', KEYS[5]) -- comes first: after a DEL, even a full Redis allows the writes below
    redis.call('ZADD', KEYS[1], whole(now_s), KEYS[i])
  end
  codes[#codes + 1] = code
end
return table.concat(codes)
