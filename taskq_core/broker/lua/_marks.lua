-- marked: the message of a new task with what Redis's clock has to say: the moment it expires at, `from_ms` being its
-- start, and for Go a deadline as much later as it may run. A field behind a message replaces the same field inside it.
-- Marks are 'p<band>:<band of its retries>;', see _place, and
-- 'x<ms it may wait>,<seconds it may run, 0 keeps the deadline>,<d: dropped when it expires>;'.
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
