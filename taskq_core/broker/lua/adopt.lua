--[[
  adopt: read the mark of each schedule entry when a scheduler starts. The mark says which firing of the entry was the
  last one that a scheduler handled. An entry without a mark gets a mark with the current time.

  KEYS[1..]  string  mark of an entry: "<last firing handled>:<last firing enqueued, or empty>" (Unix s);
                     all in one cluster slot. A value of another form or type is replaced
  ARGV[1]    int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]    int     seconds a mark is kept from now
  ARGV[3]    int     seconds: a mark that is further in the future comes from a wrong clock and is set to now
  ARGV[4]    int     number of marks

  The caller passes at most 100 entries.

  returns  now (Unix ns as text), then the mark of each entry
]]
-- include _clock
local now_s, now_ns = clock(ARGV[1])
local reply, fresh = { now_ns }, {}
for i = 1, tonumber(ARGV[4]) do
  local mark = redis.pcall('GET', KEYS[i])
  local digits = type(mark) == 'string' and string.match(mark, '^(%d+):%d*$') or nil
  local at = tonumber(digits)
  if not at or at > now_s + tonumber(ARGV[3]) or whole(at) ~= digits then
    -- `whole`, because `tick` compares marks as text
    mark = whole(now_s) .. ':'
    fresh[i] = true
  end
  reply[i + 1] = mark
end
for i = 1, tonumber(ARGV[4]) do
  if fresh[i] then
    redis.call('SET', KEYS[i], reply[i + 1], 'EX', ARGV[2])
  else
    redis.call('EXPIRE', KEYS[i], ARGV[2])
  end
end
return reply
