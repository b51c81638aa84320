-- lead: take or renew the lease of a service of the queue; true while `token` holds it. Writes only when it leads.
-- A key of another type is overwritten, because otherwise no worker would ever lead.
-- DEL comes first, because Redis accepts it over maxmemory, and then also the script's later writes.
local function lead(key, token, ttl_ms)
  local holder = redis.pcall('GET', key)
  if type(holder) == 'string' and holder ~= token then
    return false
  end
  redis.call('DEL', key)
  redis.call('SET', key, token, 'PX', ttl_ms)
  return true
end
