-- most_active: how many tasks of a queue may be active at most: what people set over it, or else what its workers say.
local function most_active(set_key, given)
  local set = redis.pcall('HGET', set_key, 'o:c:')
  return type(set) == 'string' and tonumber(set) or tonumber(given)
end
