-- clock: Redis's own time; `override` (Unix ns as text, empty in production) replaces it in tests.
-- Returns whole seconds, the nanoseconds as text and the milliseconds as a number.
local function clock(override)
  if override ~= '' then
    return tonumber(string.sub(override, 1, -10)), override, tonumber(string.sub(override, 1, -7))
  end
  local time = redis.call('TIME')
  local now_ns = time[1] .. string.sub('00000' .. time[2], -6) .. '000'
  return tonumber(time[1]), now_ns, tonumber(string.sub(now_ns, 1, -7))
end

-- whole: a whole number as decimal text (Lua would print large ones with an exponent). As an integer of C where it is one
-- on every machine, a `long` of 32 bits included: that takes a third of the time, and seconds are in it until 2038.
local function whole(number)
  local is_integer = number % 1 == 0 and number > -2147483649 and number < 2147483648
  return string.format(is_integer and '%d' or '%.0f', number)
end

-- due: the Unix second that is not before `delay_ms` from now, so that nothing starts early.
local function due(now_ms, delay_ms)
  return math.ceil((now_ms + delay_ms) / 1000)
end
