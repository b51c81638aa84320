--[[
  discard: delete a batch of tasks of a queue that is being removed, and the unique locks that these tasks hold.

  KEYS[1]  list    formerly pending tasks
  KEYS[2]  zset    scheduled
  KEYS[3]  zset    retry
  KEYS[4]  zset    archived
  KEYS[5]  zset    completed
  KEYS[6]  set     names of groups
  KEYS[7]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[8]  zset    quarantine
  ARGV[1]  string  prefix of the queue's keys
  ARGV[2]  string  prefix of quarantined hashes
  ARGV[3]  string  channel for the ids of ended tasks
  ARGV[4]  int     maximum number of tasks to delete (at most 200)
  ARGV[5]  string  prefix of the queue's taskq-only keys

  A step of a workflow with another home queue stays listed as started, so that the dispatcher of its home queue notices
  that the task was deleted.

  returns  number of deleted tasks, 1 if no task is left
]]
-- include _leave_active
local unique_prefix = ARGV[1] .. 'unique:'
-- include _unique
-- include _lock
local keys = { done = ARGV[3] }
redis.call('LLEN', KEYS[1]) -- this and the next calls raise an error if a key has another type
redis.call('SCARD', KEYS[6])
for _, number in ipairs({ 2, 3, 4, 5, 7, 8 }) do
  redis.call('ZCARD', KEYS[number])
end
local left, deleted = tonumber(ARGV[4]), 0
local prefix, group_prefix, own = ARGV[1], ARGV[1] .. 'g:', ARGV[5]

local function delete(key, id)
  local fields = redis.pcall('HMGET', key, 'unique_key', 'msg', 'taskq_wait', 'taskq_step')
  left = left - 1
  if fields[1] == nil then
    return -- the key is not a hash
  end
  deleted = deleted + redis.call('DEL', key)
  release(fields[1] or lock_of(fields[2] or ''), id)
  announce(keys, fields[3], id)
  if fields[4] and string.find(fields[4], ' ' .. own .. 'wf:', 1, true) then
    redis.pcall('ZREM', own .. 'wf-steps', fields[4])
  end
end

local function drain(set, key_prefix)
  while left > 0 do
    local popped = redis.pcall('ZPOPMIN', set)
    if not popped[1] then
      return true -- the group is empty, or its key has another type and is not a group
    end
    delete(key_prefix .. popped[1], popped[1])
  end
  return redis.call('EXISTS', set) == 0
end

while left > 0 do
  local id = redis.call('RPOP', KEYS[1])
  if not id then
    break
  end
  delete(prefix .. 't:' .. id, id)
end
for _, number in ipairs({ 2, 3, 4, 5 }) do
  drain(KEYS[number], prefix .. 't:')
end
drain(KEYS[8], ARGV[2])
while left > 0 do
  local name = redis.call('SRANDMEMBER', KEYS[6])
  if not name then
    break
  end
  if drain(group_prefix .. name, prefix .. 't:') then
    redis.call('SREM', KEYS[6], name)
  end
  left = left - 1
end
while left > 0 do
  local set = redis.call('ZRANGE', KEYS[7], 0, 0)[1]
  if not set then
    break
  end
  if string.sub(set, 1, #group_prefix) ~= group_prefix or drain(set, prefix .. 't:') then
    redis.call('ZREM', KEYS[7], set)
  end
  left = left - 1
end
return { deleted, redis.call('EXISTS', unpack(KEYS)) == 0 and 1 or 0 }
