-- is_number: whether a counter holds a whole number.
local function is_number(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and string.match(value, '^%-?%d+$') ~= nil
end
