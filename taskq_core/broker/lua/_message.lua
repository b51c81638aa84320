-- Functions that read the message of a task only if it is not too large. A larger one could exhaust the memory of its
-- reader. Instead of it they return "\0<bytes> <limit>". No valid message begins with a zero byte.

local function unread(size, most)
  return '\0' .. string.format('%.0f %.0f', size, most)
end

-- message_of: return the message of a task, false if it has none, nil if the key has another type.
local function message_of(key, most)
  local size = redis.pcall('HSTRLEN', key, 'msg')
  if type(size) ~= 'number' then
    return nil
  end
  return size > most and unread(size, most) or redis.call('HGET', key, 'msg')
end
