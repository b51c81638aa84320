--[[
  notify: put a wake token if tasks are pending, on behalf of producers that put no token, such as Go's.

  KEYS[1]  list    pending tasks
  KEYS[2]  list    wake tokens
  KEYS[3]  string  present while the queue is paused
  KEYS[4]  list    active tasks
  KEYS[5]  hash    what people have set over limits
  ARGV[1]  int     most active tasks of the queue, '' for any number; what people set over it counts

  returns  1  a token was put   0  one lies there already   -1  nothing is pending   -2  nothing is handed out
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
