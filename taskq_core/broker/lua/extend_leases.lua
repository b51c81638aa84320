--[[
  extend_leases: extend the leases of a worker's running tasks. The worker calls this script every few seconds.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  KEYS[2]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  int     length of the new lease (s)
  ARGV[4]  string  prefix of task keys
  ARGV[5]  int     minimum time for which the tasks hold their unique locks (s)
  ARGV[6..]        per task: number of its run, id

  The worker may also extend a lease that has expired, as long as no recoverer has taken the task. The first write is a
  DEL: after a DEL, even a full Redis allows the later writes of this script.

  returns  now (Unix ns as text), then one character per task:  1  extended   0  the worker no longer owns the task
]]
-- include _clock
local unique_prefix = string.sub(ARGV[4], 1, -3) .. 'unique:'
-- include _unique
-- include _renew
local now_s, now_ns = clock(ARGV[1])
local expiry = whole(now_s + tonumber(ARGV[3]))
redis.call('DEL', KEYS[2])
local codes = {}
for i = 6, #ARGV, 2 do
  local owner, id = ARGV[2] .. '.' .. ARGV[i] .. ':', ARGV[i + 1]
  local key = ARGV[4] .. id
  local score = redis.call('ZSCORE', KEYS[1], id)
  local fields = score and redis.pcall('HMGET', key, 'taskq_owner', 'unique_key', 'taskq_unique')
  if fields and fields[1] == owner .. score then
    redis.call('ZADD', KEYS[1], expiry, id)
    redis.call('HSET', key, 'taskq_owner', owner .. expiry)
    if fields[2] and covers(fields[3] or '', 'active') then
      renew(fields[3], fields[2], id, ARGV[5])
    end
    codes[#codes + 1] = '1'
  else
    codes[#codes + 1] = '0'
  end
end
return { now_ns, table.concat(codes) }
