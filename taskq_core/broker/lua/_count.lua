-- add: increase a counter by n and return the new value. If a lifetime counter would exceed the largest int64, it
-- starts again at n, as in Go Asynq.
local function add(key, n)
  local value = redis.pcall('INCRBY', key, n)
  if type(value) == 'table' then
    redis.call('SET', key, n)
    return n
  end
  return value
end

-- count: add n to the lifetime counter of a queue and to the counter of the current UTC day. The daily counter expires
-- after `ttl_s` seconds.
local function count(prefix, name, n, now_s, ttl_s)
  if n == 0 then
    return
  end
  local daily = prefix .. name .. ':' .. utc_date(now_s)
  if add(daily, n) == n then
    redis.call('EXPIREAT', daily, whole(now_s + ttl_s))
  end
  add(prefix .. name, n)
end
