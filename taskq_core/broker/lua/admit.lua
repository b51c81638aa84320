--[[
  admit: make tasks pending that waited for a limit (such as a rate limit) and may start now. Only the worker that leads
  this service changes tasks.

  KEYS[1]  zset    slots by time at which the next waiting task may start (Unix ms)
  KEYS[2]  zset    slots by time at which their holders are checked (Unix ms)
  KEYS[3]  string  token of the worker that leads
  KEYS[4]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  KEYS[5]  hash    limits of the queue
  KEYS[6]  zset    workers that admit tasks, by their last call (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of this worker
  ARGV[3]  int     ms the leader's lease lasts
  ARGV[4]  string  prefix of the queue's keys
  ARGV[5]  int     maximum number of slots to check of each kind (at most 100)

  returns  now (Unix ns as text), 1 if this worker leads / 0 if another does, number of tasks that became pending, ms
           until a slot is due ('' none)
]]
-- include _clock
-- include _lead
-- include _place
-- include _limits
local now_s, now_ns, now_ms = clock(ARGV[1])
if redis.call('EXISTS', KEYS[5]) == 1 then
  local limits = limiter(ARGV[4], now_s, now_ns, now_ms)
  redis.call('DEL', KEYS[4]) -- comes first: after a DEL, even a full Redis allows the writes below
  limits.own('ZADD', KEYS[6], whole(now_s), ARGV[2])
  for _, gone in ipairs(redis.call('ZRANGE', KEYS[6], '-inf', whole(now_s - 60), 'BYSCORE', 'LIMIT', 0, 100)) do
    redis.call('ZREM', KEYS[6], gone)
  end
  redis.call('EXPIRE', KEYS[6], 60)
end
if not lead(KEYS[3], ARGV[2], ARGV[3]) then
  return { now_ns, 0, 0, '' }
end
local limits = limiter(ARGV[4], now_s, now_ns, now_ms)
for number = 1, 2 do
  for _, slot in ipairs(limits.own('ZRANGE', KEYS[number], '-inf', whole(now_ms), 'BYSCORE', 'LIMIT', 0, ARGV[5])) do
    redis.call('ZREM', KEYS[number], slot)
    if number == 2 then
      limits.verify(slot)
    end
    limits.admit(slot)
  end
end
limits.finish()
local first
for number = 1, 2 do
  local at_ms = tonumber(limits.own('ZRANGE', KEYS[number], 0, 0, 'WITHSCORES')[2] or '')
  first = at_ms and math.min(at_ms, first or at_ms) or first
end
return { now_ns, 1, limits.ready, first and whole(math.max(0, first - now_ms)) or '' }
