-- add: increase a counter by n and return its value. A lifetime counter restarts beyond the largest int64, as in
-- Go Asynq.
local function add(key, n)
  local value = redis.pcall('INCRBY', key, n)
  if type(value) == 'table' then
    redis.call('SET', key, n)
    return n
  end
  return value
end

-- count: add n to the lifetime counter and to the counter of the UTC day, which expires after `ttl_s` seconds.
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
