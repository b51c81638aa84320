-- wake: push a wake token for a waiting worker, unless the list already contains a wake token.
local function wake(key)
  if redis.call('LLEN', key) == 0 then
    redis.call('LPUSH', key, '1')
  end
end
