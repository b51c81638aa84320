--[[
  mark_starts: record that a worker starts runs, each the last attempt of its task. If the worker is lost, the task
  loses its last attempt only if the run had started.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  KEYS[2]  any     a key that never exists. Redis accepts its DEL over maxmemory, and then also the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  string  prefix of task keys
  ARGV[4..]        per task: number of its run, id

  The mark is the field taskq_begun, "<token of the worker>.<run>". A mark left by an earlier run is ignored.
  A run whose lease has expired gets no mark, because the recoverer may already have listed its task as not started. DEL
  comes before any other write: Redis allows it over maxmemory, and then also allows this script's later writes.

  returns  one character per task:  1  start it   0  do not start it: its lease has expired or the run is over
]]
-- include _clock
local now_s = clock(ARGV[1])
redis.call('DEL', KEYS[2])
local codes = {}
for i = 4, #ARGV, 2 do
  local owner, id = ARGV[2] .. '.' .. ARGV[i], ARGV[i + 1]
  local key = ARGV[3] .. id
  local score = redis.call('ZSCORE', KEYS[1], id)
  if score and tonumber(score) > now_s and redis.pcall('HGET', key, 'taskq_owner') == owner .. ':' .. score then
    redis.call('HSET', key, 'taskq_begun', owner)
    codes[#codes + 1] = '1'
  else
    codes[#codes + 1] = '0'
  end
end
return table.concat(codes)
