-- most_active: return the maximum number of active tasks of a queue: the value that a user set, else the worker's setting.
local function most_active(set_key, given)
  local set = redis.pcall('HGET', set_key, 'o:c:')
  return type(set) == 'string' and tonumber(set) or tonumber(given)
end
