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
    local left, deadline = expires_s + tonumber(run_s), { '\72' } -- field 9, a varint
    while left > 127 do
      deadline[#deadline + 1] = string.char(128 + left % 128)
      left = math.floor(left / 128)
    end
    message = message .. table.concat(deadline) .. string.char(left)
  end
  local value = whole(expires_s) .. (discard == 'd' and ' discard' or '')
  local entry = '\10\13taskq-expires\18' .. string.char(#value) .. value
  return message .. '\122' .. string.char(#entry) .. entry -- field 15, an entry of the headers
end
