--[[
  rouse: put a wake token if tasks are pending, for producers that put none themselves.

  KEYS[1]  list    pending tasks
  KEYS[2]  list    wake tokens

  returns  1  a token was put   0  one lies there already   -1  nothing is pending
]]
if redis.call('LLEN', KEYS[1]) == 0 then
  return -1
elseif redis.call('LLEN', KEYS[2]) > 0 then
  return 0
end
redis.call('LPUSH', KEYS[2], '1')
return 1
