--[[
  mark_starts: record that a worker starts the last allowed run of each given task. If the worker is lost before this
  record is written, the task may be run once more.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  KEYS[2]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  token of the worker
  ARGV[3]  string  prefix of task keys
  ARGV[4..]        per task: number of its run, id

  The mark is the field taskq_begun, "<token of the worker>.<run>". A mark of an earlier run is ignored. A run whose
  lease has expired gets no mark, because the recoverer may already have listed its task as not started. The first write
  is a DEL: after a DEL, even a full Redis allows the later writes of this script.

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
