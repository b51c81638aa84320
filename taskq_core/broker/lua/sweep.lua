--[[
  sweep: delete members of the oldest combined set. A combined set is an aggregation set whose members were combined
  into one stored task.

  KEYS[1]  zset    combined sets: id of a set whose members must still be deleted, by time (Unix s)
  KEYS[2]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  ARGV[1]  string  prefix of the keys of combined sets
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  channel for the ids of ended tasks

  returns  number of deleted members (at most 100, and about 1 MiB of messages), number of remaining sets
]]
-- include _leave_active
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _lock
-- include _sweep
local id = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
if not id then
  return { 0, 0 }
end
local set, deleted = ARGV[1] .. id, 0
local size = redis.pcall('ZCARD', set)
if type(size) == 'number' then
  redis.call('DEL', KEYS[2]) -- comes first: after a DEL, even a full Redis allows the writes below
  deleted = sweep({ prefix = ARGV[2], done = ARGV[3] }, set)
  size = size - deleted
end
if size == 0 or type(size) == 'table' then -- a table is the error for a key of another type
  redis.call('ZREM', KEYS[1], id)
end
return { deleted, redis.call('ZCARD', KEYS[1]) }
