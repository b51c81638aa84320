-- fields_of: return the values of the fields msg, result and taskq_oversized of a task, and of further fields. Each is false
-- if missing, nil if the key has another type. A result over `most_result` bytes is not read: then taskq_oversized is
-- "<bytes> <limit> unread". Needs the file `_message`.
local function fields_of(key, most, most_result, ...)
  local size = redis.pcall('HSTRLEN', key, 'msg')
  if type(size) ~= 'number' then
    return size -- an error, which has none of the fields
  end
  local result_size = redis.call('HSTRLEN', key, 'result')
  local fields = redis.call(
    'HMGET', key, size > most and 'taskq_none' or 'msg', result_size > most_result and 'taskq_none' or 'result',
    'taskq_oversized', ...
  )
  if size > most then
    fields[1] = unread(size, most)
  end
  if result_size > most_result then
    fields[3] = string.format('%.0f %.0f unread', result_size, most_result)
  end
  return fields
end
