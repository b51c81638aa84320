--[[
  relock: free unique locks whose holder may not hold them, and give tasks back their lost locks.

  KEYS[1]  any     a key that never exists
  KEYS[2..] string locks, then hashes of tasks (at most 50 in all)
  ARGV[1]  string  prefix of the queue's keys
  ARGV[2]  int     1 to do so, 0 only to report it
  ARGV[3]  int     number of locks
  ARGV[4]  int     number of locks and tasks; a cluster declares one more key

  A lock is freed whose holder is gone, has come to a state that its rule does not cover, or names another lock. A task
  gets back the lock that its rule grants without expiry, if the lock is free.

  returns  per key: '' if nothing is wrong, else the id of the task that a lock names, or the lock that a task names
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
        redis.call('DEL', KEYS[1]) -- accepted also over maxmemory, and with it the write that follows
        redis.call('SET', lock, id)
      end
    end
  end
  reply[#reply + 1] = wrong
end
return reply
