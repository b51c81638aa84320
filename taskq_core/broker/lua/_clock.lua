-- clock: Redis's own time; `override` (Unix ns as text, empty in production) replaces it in tests.
-- Returns whole seconds, the nanoseconds as text and the milliseconds as a number.
local function clock(override)
  if override ~= '' then
    return tonumber(string.sub(override, 1, -10)), override, tonumber(string.sub(override, 1, -7))
  end
  local time = redis.call('TIME')
  local micros = string.format('%06d', tonumber(time[2]))
  return tonumber(time[1]), time[1] .. micros .. '000', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- whole: a whole number as decimal text (Lua would print large ones with an exponent).
local function whole(number)
  return string.format('%.0f', number)
end

-- due: the Unix second that is not before `delay_ms` from now, so that nothing starts early.
local function due(now_ms, delay_ms)
  return math.ceil((now_ms + delay_ms) / 1000)
end
