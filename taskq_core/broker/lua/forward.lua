--[[
  forward: move due scheduled and retry tasks to the pending tasks, to their group, or to the waiting line of a limit.
  Only the worker that leads this service moves tasks.

  KEYS[1]  zset    scheduled: id by start (Unix s)
  KEYS[2]  zset    retry: id by next attempt (Unix s)
  KEYS[3]  list    pending tasks
  KEYS[4]  set     names of groups with members
  KEYS[5]  list    wake tokens
  KEYS[6]  string  token of the worker that leads
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of this worker
  ARGV[3]  int     ms the leader's lease lasts
  ARGV[4]  string  prefix of the queue's keys
  ARGV[5]  int     maximum number of tasks to move (at most 100)

  returns  now (Unix ns as text), 1 if this worker leads / 0 if another does, number of moved tasks, number of ids that
           were dropped because their hash does not exist
]]
-- include _check
-- include _clock
-- include _lead
-- include _place
-- include _wake
-- include _batch
-- include _limits
local now_s, now_ns, now_ms = clock(ARGV[1])
local due = {} -- the next calls raise an error if a key has another type. No write follows if nothing is due
for source = 1, 2 do
  due[source] = redis.call('ZRANGE', KEYS[source], '-inf', whole(now_s), 'BYSCORE', 'LIMIT', 0, ARGV[5])
end
if #due[1] + #due[2] > 0 then
  check('LLEN', KEYS[3], KEYS[5])
  check('SCARD', KEYS[4])
end
if not lead(KEYS[6], ARGV[2], ARGV[3]) then
  return { now_ns, 0, 0, 0 }
end
local limit, moved, dropped, ready = tonumber(ARGV[5]), 0, 0, new_batch()
local limits

local function may_start(id, key, text)
  limits = limits or limiter(ARGV[4], now_s, now_ns, now_ms)
  return limits.again(id, key, text)
end

for source = 1, 2 do
  for number = 1, math.min(#due[source], limit - moved - dropped) do
    local id = due[source][number]
    local key = ARGV[4] .. 't:' .. id
    local fields = redis.pcall('HMGET', key, 'group', 'taskq_priority', 'taskq_limit', 'taskq_group')
    local size = redis.pcall('HSTRLEN', key, 'msg') -- the message may be too large to be read
    local group = fields[1] or (source == 1 and fields[4])
    if group and (group == '' or type(redis.pcall('ZCARD', ARGV[4] .. 'g:' .. group)) == 'table') then
      group = nil -- the group key is not a zset, so the task runs alone
    end
    redis.call('ZREM', KEYS[source], id)
    if type(size) ~= 'number' or size == 0 then
      if size == 0 then
        redis.call('DEL', key) -- delete a hash without a message, because it prevents new tasks with this id
      end
      dropped = dropped + 1
    elseif group then
      redis.call('ZADD', ARGV[4] .. 'g:' .. group, whole(now_s), id)
      redis.call('SADD', KEYS[4], group)
      redis.call('HSET', key, 'state', 'aggregating', 'group', group)
      if fields[4] then
        redis.call('HDEL', key, 'taskq_group')
      end
      moved = moved + 1
    elseif fields[3] and not may_start(id, key, fields[3]) then
      moved = moved + 1
    else
      local band = fields[2] and band_of(fields[2], source == 2) or 0
      if band == 0 and fields[2] then -- the task was urgent in its first run, but its retries have no priority
        redis.pcall('ZREM', string.sub(KEYS[5], 1, -5) .. 'urgent', id)
      end
      ready.add(id, band)
      redis.call('HSET', key, 'state', 'pending', 'pending_since', now_ns)
      moved = moved + 1
    end
  end
end
ready.push(KEYS[3], KEYS[5], ARGV[4] .. 't:', now_ms, place_all)
if limits then
  limits.finish()
end
return { now_ns, 1, moved, dropped }
