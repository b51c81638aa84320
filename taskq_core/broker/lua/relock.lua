--[[
  relock: release stale unique locks, and restore missing locks of tasks.

  KEYS[1]  any     a key that never exists. After a DEL of this key, even a full Redis allows the later writes
  KEYS[2..] string locks, then hashes of tasks (at most 50 in all)
  ARGV[1]  string  prefix of the queue's keys
  ARGV[2]  int     1 to repair, 0 only to report
  ARGV[3]  int     number of locks
  ARGV[4]  int     number of locks and tasks; in a cluster there is one more key

  A lock is stale if its holder does not exist, has a state that its lock rule does not cover, or names another lock. A
  task gets a lock back if its lock rule grants the lock without expiry and the lock is free.

  returns  per key: '' if nothing is wrong, else the id of the task that the lock names, or the lock that the task lost
]]
local unique_prefix = ARGV[1] .. 'unique:'
-- include _unique
local reply = {}
for i = 2, 1 + tonumber(ARGV[4]) do
  local key, wrong = KEYS[i], ''
  if i - 1 <= tonumber(ARGV[3]) then
    local holder = redis.pcall('GET', key)
    if type(holder) == 'string' and not is_held(key, ARGV[1] .. 't:' .. holder) then
      wrong = holder
      if ARGV[2] == '1' then
        redis.call('DEL', key)
      end
    end
  else
    local id = string.sub(key, #ARGV[1] + 3)
    local lock = lost_lock(key)
    if lock then
      wrong = lock
      if ARGV[2] == '1' then
        redis.call('DEL', KEYS[1]) -- comes first: after a DEL, even a full Redis allows the writes below
        redis.call('SET', lock, id)
      end
    end
  end
  reply[#reply + 1] = wrong
end
return reply
