--[[
  enqueue: store new tasks, each as pending or, with a start time ahead, as scheduled.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  zset    scheduled tasks: id by start (Unix s)
  KEYS[3]  list    wake tokens
  KEYS[4]  string  receipt of this caller's last call: "<call>:<codes>"
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  int     number of this call; a repeat with the same number changes nothing and returns the codes again
  ARGV[3]  int     seconds the receipt is kept
  ARGV[4]  string  prefix of task keys
  ARGV[5]  int     arguments per task: 2 (plain) or 5
  ARGV[6..]        per task: id, message and, with 5, start ('' now, '=<Unix s>', '+<ms from now>'),
                   unique lock key ('' none), seconds of the lock after the start

  A batch is bounded by its caller (200 tasks, about 1 MiB).

  returns  one character per task:  1  stored   0  id taken   d  unique lock held by another task
]]
-- include _clock
-- include _wake
local now_s, now_ns, now_ms = clock(ARGV[1])
local receipt = redis.call('GET', KEYS[4])
if receipt then
  local call, codes = string.match(receipt, '^(%d+):(.*)$')
  if call == ARGV[2] then
    return codes
  end
end
redis.call('LLEN', KEYS[1]) -- a key of another type is refused here, before the first write
redis.call('LLEN', KEYS[3])
local stride = tonumber(ARGV[5])
if stride == 5 then
  redis.call('ZCARD', KEYS[2])
end

local codes, ready = {}, {}
for i = 6, #ARGV, stride do
  local id = ARGV[i]
  local key = ARGV[4] .. id
  local start_s, lock = 0, ''
  if stride == 5 then
    local start = ARGV[i + 2]
    if start ~= '' then
      local value = tonumber(string.sub(start, 2))
      start_s = string.sub(start, 1, 1) == '=' and value or (value > 0 and due(now_ms, value) or 0)
    end
    lock = ARGV[i + 3]
  end
  local code
  if lock ~= '' and redis.call('EXISTS', lock) == 1 then
    code = 'd'
  elseif redis.call('EXISTS', key) == 1 then
    code = '0'
  else
    code = '1'
    local scheduled = start_s * 1000 > now_ms
    if scheduled then
      redis.call('HSET', key, 'msg', ARGV[i + 1], 'state', 'scheduled')
      redis.call('ZADD', KEYS[2], whole(start_s), id)
    else
      redis.call('HSET', key, 'msg', ARGV[i + 1], 'state', 'pending', 'pending_since', now_ns)
      ready[#ready + 1] = id
    end
    if lock ~= '' then
      local ttl_s = tonumber(ARGV[i + 4]) + (scheduled and math.floor((start_s * 1000 - now_ms) / 1000) or 0)
      redis.call('SET', lock, id, 'EX', whole(math.max(1, math.min(ttl_s, 10000000000)))) -- never refused half-way
      redis.call('HSET', key, 'unique_key', lock)
    end
  end
  codes[#codes + 1] = code
end
for i = 1, #ready, 200 do
  redis.call('LPUSH', KEYS[1], unpack(ready, i, math.min(i + 199, #ready)))
end
if #ready > 0 then
  wake(KEYS[3])
end
codes = table.concat(codes)
redis.call('SET', KEYS[4], ARGV[2] .. ':' .. codes, 'EX', ARGV[3])
return codes
