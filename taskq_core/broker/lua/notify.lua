--[[
  notify: wake a worker if tasks are pending. Some producers, such as Go programs, do not wake workers themselves.

  KEYS[1]  list    pending tasks
  KEYS[2]  list    wake tokens
  KEYS[3]  string  present while the queue is paused
  KEYS[4]  list    active tasks
  KEYS[5]  hash    limits of the queue, with the values that users set
  ARGV[1]  int     maximum number of active tasks of the queue, '' for any number; a value in KEYS[5] overrides it

  returns   1  token pushed          0  there is a token already
           -1  no pending task      -2  the queue is paused, or has the maximum number of active tasks
]]
if redis.call('LLEN', KEYS[1]) == 0 then
  return -1
elseif redis.call('LLEN', KEYS[2]) > 0 then
  return 0
elseif redis.call('EXISTS', KEYS[3]) == 1 then
  return -2
elseif ARGV[1] ~= '' then
-- include _most_active
  if redis.call('LLEN', KEYS[4]) >= most_active(KEYS[5], ARGV[1]) then
    return -2
  end
end
redis.call('LPUSH', KEYS[2], '1')
return 1
