--[[
  clean: delete completed tasks whose retention has ended, and archived tasks that are too old or too many.

  KEYS[1]  zset    completed: id by end of retention (Unix s)
  KEYS[2]  zset    archived: id by archiving time (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of task keys
  ARGV[3]  int     maximum number of completed tasks to delete
  ARGV[4]  int     seconds for which an archived task is kept
  ARGV[5]  int     maximum number of archived tasks

  returns  number of deleted completed tasks, number of deleted archived tasks (at most 100)
]]
-- include _clock
local unique_prefix = string.sub(ARGV[2], 1, -3) .. 'unique:'
-- include _unique
-- include _forget_steps
-- include _trim
local now_s = clock(ARGV[1])
local ids = redis.call('ZRANGE', KEYS[1], '-inf', whole(now_s), 'BYSCORE', 'LIMIT', 0, ARGV[3])
redis.call('ZCARD', KEYS[2]) -- raises an error, before the first write, if the key has another type
for _, id in ipairs(ids) do
  forget(KEYS[1], ARGV[2] .. id, id)
end
return { #ids, trim(KEYS[2], ARGV[2], now_s - tonumber(ARGV[4]), tonumber(ARGV[5])) }
