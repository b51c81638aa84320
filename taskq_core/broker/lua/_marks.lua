-- varint: return a whole number that is not negative as protobuf writes it.
local function varint(number)
  local bytes = ''
  while number > 127 do
    bytes = bytes .. string.char(number % 128 + 128)
    number = math.floor(number / 128)
  end
  return bytes .. string.char(number)
end

-- marked: return the message of a new task with the expiry of the task as an absolute time, computed from Redis's
-- clock. `from_ms` is the start of the task. For Go workers, the message also gets a deadline: the expiry plus the
-- maximum duration of a run. The new fields are appended to the message, because an appended protobuf field replaces
-- the same field inside the message. A task can have these marks:
--   p<band>:<band of its retries>;         see `_place`
--   g<generation, hexadecimal>;            see `_generation`
--   x<ms it may wait>,<seconds it may run, 0 keeps the deadline>,<d if it is dropped when it expires>;
local function marked(message, marks, from_ms)
  local wait_ms, run_s, discard = string.match(marks, 'x(%d+),(%d+),(d?);')
  if not wait_ms then
    return message
  end
  local expires_s = math.ceil((from_ms + tonumber(wait_ms)) / 1000)
  if run_s ~= '0' then
    message = message .. '\72' .. varint(expires_s + tonumber(run_s)) -- field 9
  end
  local value = whole(expires_s) .. (discard == 'd' and ' discard' or '')
  local entry = '\10\13taskq-expires\18' .. string.char(#value) .. value
  return message .. '\122' .. string.char(#entry) .. entry -- field 15, an entry of the headers
end
