-- lead: take or renew the leader lease of a service of the queue. Return whether the worker with this `token` holds the
-- lease. The function writes only if that worker holds the lease. A key of another type is overwritten, because
-- otherwise no worker would ever lead. The first write is a DEL: after a DEL, even a full Redis allows the later
-- writes.
local function lead(key, token, ttl_ms)
  local holder = redis.pcall('GET', key)
  if type(holder) == 'string' and holder ~= token then
    return false
  end
  redis.call('DEL', key)
  redis.call('SET', key, token, 'PX', ttl_ms)
  return true
end
