-- made_before: find a repeated call in the receipt of its caller, "<number of its last call>:<answer>". A caller numbers
-- its calls in ascending order. Returns the answer if this call was the last one, an error if the caller has made a later
-- call, and nil if the call is new. After a later call, this request is a delayed one whose repeat may have been answered.
local function made_before(key, call)
  local receipt = redis.pcall('GET', key)
  if type(receipt) == 'table' and not string.find(tostring(receipt.err), 'WRONGTYPE', 1, true) then
    redis.call('GET', key) -- raises the error: without the receipt, a repeat would store its tasks again
  elseif type(receipt) == 'string' then
    local last, answer = string.match(receipt, '^(%d+):(.*)$')
    if last == call then
      return answer
    elseif last and tonumber(last) > tonumber(call) then
      return redis.error_reply('TASKQSTALE call ' .. call .. ' came after call ' .. last)
    end
  end
end
