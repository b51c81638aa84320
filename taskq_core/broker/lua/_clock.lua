-- clock: return Redis's time as whole seconds, as nanoseconds (text) and as milliseconds (number). In tests, `override`
-- (Unix ns as text) is used instead of Redis's time.
local function clock(override)
  if override ~= '' then
    return tonumber(string.sub(override, 1, -10)), override, tonumber(string.sub(override, 1, -7))
  end
  local time = redis.call('TIME')
  local now_ns = time[1] .. string.sub('00000' .. time[2], -6) .. '000'
  return tonumber(time[1]), now_ns, tonumber(string.sub(now_ns, 1, -7))
end

-- whole: return a whole number as decimal text, because Lua prints large numbers with an exponent. Numbers that fit 32
-- bits, such as Unix seconds until 2038, are formatted as C integers, which takes a third of the time.
local function whole(number)
  local is_integer = number % 1 == 0 and number > -2147483649 and number < 2147483648
  return string.format(is_integer and '%d' or '%.0f', number)
end

-- due: return the first whole Unix second that is at least `delay_ms` milliseconds from now. The time is rounded up, so
-- that no task starts early.
local function due(now_ms, delay_ms)
  return math.ceil((now_ms + delay_ms) / 1000)
end

-- far_s: score in Asynq's scheduled set of a task that waits for a limit, the last second of the year 9999. In Python, it
-- is `LATEST_S`.
local far_s = '253402300799'
