-- append: append values that a run emitted to the stream of its task, unless this request is a repeat or arrives late.
-- ARGV[first] is the first of these arguments:
--   number of the request in the run. Requests with the same or a lower number than an earlier one append nothing
--   approximate maximum number of values in the stream
--   channel for the ids of changed tasks
--   attempt
--   then for each value: name of the step ('' none), JSON
-- The other parameters are fields of the record, and their values, that are stored with the emitted values.
--
-- The id of a value is "<Unix ms>-<number of the value in the stream>", so a reader sees how many values were deleted. If
-- Redis's clock goes back, the time stays the same.
-- The caller has checked the type of the stream, and has made a write after which even a full Redis allows the writes of
-- this function. Needs the files `_clock` and `_steps`.
local function append(record, stream, run, id, first, now_ms, ...)
  local stored = redis.call('HMGET', record, 'emitted', 'values')
  local last_run, last = string.match(stored[1] or '', '^(%S+) (%d+)$')
  if last_run == run and tonumber(last) >= tonumber(ARGV[first]) then
    return
  end
  local ms, number = string.match(stored[2] or '0-0', '^(%d+)-(%d+)$')
  ms = whole(math.max(now_ms, tonumber(ms)))
  for at = first + 4, #ARGV, 2 do
    number = whole(number + 1)
    local value = { 'a', ARGV[first + 3], 's', ARGV[at], 'v', ARGV[at + 1] }
    redis.call('XADD', stream, 'MAXLEN', '~', ARGV[first + 1], ms .. '-' .. number, unpack(value))
  end
  redis.call('HSET', record, 'emitted', run .. ' ' .. ARGV[first], 'values', ms .. '-' .. number, ...)
  if ARGV[first + 4] then
    redis.call('EXPIRE', stream, STEPS_KEPT_S)
    redis.call('PUBLISH', ARGV[first + 2], id)
  end
end
