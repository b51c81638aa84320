--[[
  check_limits: check one page of the limits of a queue. Release permits of deleted tasks, remove deleted tasks from
  waiting lines, and reschedule waiting tasks that are in no waiting line.

  KEYS[1]  zset    scheduled: id by start (Unix s)
  KEYS[2]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  cursor of the scan over all keys: '0' to begin, then the cursor that the previous call returned, ''
                   not to scan
  ARGV[4]  string  pattern that the keys of holders and lines match
  ARGV[5]  int     how many of the tasks that wait for a limit to skip, -1 to check none
  ARGV[6]  int     approximate number of keys, and of tasks, to check

  returns  the next cursor ('0' at the end), tasks checked, permits released, tasks rescheduled
]]
-- include _clock
-- include _place
-- include _limits
redis.call('ZCARD', KEYS[1]) -- raises an error, before the first write, if the key has another type
redis.call('DEL', KEYS[2]) -- comes first: after a DEL, even a full Redis allows the writes below
local now_s, now_ns, now_ms = clock(ARGV[1])
local limits = limiter(ARGV[2], now_s, now_ns, now_ms)
local cursor, looked, freed, lost = '0', 0, 0, 0
if ARGV[3] ~= '' then
  local page = redis.call('SCAN', ARGV[3], 'MATCH', ARGV[4], 'COUNT', ARGV[6])
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    local slot = string.sub(key, #limits.lim + 3)
    if string.sub(key, #limits.lim + 1, #limits.lim + 1) == 'w' then
      limits.prune(slot)
    else
      freed = freed + limits.verify(slot)
    end
  end
end
if tonumber(ARGV[5]) >= 0 then
  local ids = redis.call('ZRANGE', KEYS[1], far_s, far_s, 'BYSCORE', 'LIMIT', ARGV[5], ARGV[6])
  looked = #ids
  for _, id in ipairs(ids) do
    local fields = redis.pcall('HMGET', ARGV[2] .. 't:' .. id, 'taskq_limit', 'taskq_line')
    if fields[1] and not (fields[2] and limits.own('ZSCORE', limits.lim .. 'w:' .. fields[2], id)) then
      redis.call('ZADD', KEYS[1], whole(now_s), id) -- the forwarder applies the limits again
      lost = lost + 1
    end
  end
end
limits.finish()
return { cursor, looked, freed, lost }
