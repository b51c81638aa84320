-- lead: take or renew the lease of a service of the queue; true while `token` holds it. Writes only when it leads.
-- A key of another type is overwritten, because otherwise no worker would ever lead.
-- The DEL comes first because Redis never refuses it, also over maxmemory, and lets the script's other writes follow.
local function lead(key, token, ttl_ms)
  local holder = redis.pcall('GET', key)
  if type(holder) == 'string' and holder ~= token then
    return false
  end
  redis.call('DEL', key)
  redis.call('SET', key, token, 'PX', ttl_ms)
  return true
end
