-- lead: take or renew the lease of a service of the queue; true while `token` holds it. Writes only when it leads.
-- The DEL comes first because Redis never refuses it, also over maxmemory, and lets the script's other writes follow.
local function lead(key, absent, token, ttl_ms)
  local holder = redis.call('GET', key)
  if holder and holder ~= token then
    return false
  end
  redis.call('DEL', absent)
  redis.call('SET', key, token, 'PX', ttl_ms)
  return true
end
