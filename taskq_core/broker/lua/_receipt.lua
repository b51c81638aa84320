-- made_before: return the stored answer if this request repeats the last call of its caller. The receipt of a caller is
-- "<number of its last call>:<answer>". A caller numbers its calls in ascending order. If the caller has already made a
-- later call, this request arrives late and must change nothing, so the function returns an error. If the call is new,
-- the function returns nil.
local function made_before(key, call)
  local receipt = redis.pcall('GET', key)
  if type(receipt) == 'table' and not string.find(tostring(receipt.err), 'WRONGTYPE', 1, true) then
    redis.call('GET', key) -- raises Redis's error, because without the receipt a repeat would store tasks again
  elseif type(receipt) == 'string' then
    local last, answer = string.match(receipt, '^(%d+):(.*)$')
    if last == call then
      return answer
    elseif last and tonumber(last) > tonumber(call) then
      return redis.error_reply('TASKQSTALE call ' .. call .. ' came after call ' .. last)
    end
  end
end
