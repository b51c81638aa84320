--[[
  set_limit: override the value of a limit or clear the override. Then let the limiter check some slots of the limit at
  once. A slot is one value of the limit's key.

  KEYS[1]  hash    values that code declares ('d:'), and overrides by users ('o:')
  KEYS[2]  zset    slots by when their next waiting task may start (Unix ms)
  KEYS[3]  zset    slots by when their holders are checked (Unix ms)
  KEYS[4]  list    wake token of the limiter
  ARGV[1]  string  kind and name of the limit
  ARGV[2]  string  new override, '' to clear it
  ARGV[3]  string  where to read the slots: 2 for KEYS[2], 3 for KEYS[3]
  ARGV[4]  string  cursor of the scan: '0' to begin, then the cursor that the previous call returned

  returns  the next cursor ('0' at the end), the previous override ('' none)
]]
local before = redis.call('HGET', KEYS[1], 'o:' .. ARGV[1]) or ''
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], 'o:' .. ARGV[1])
else
  redis.call('HSET', KEYS[1], 'o:' .. ARGV[1], ARGV[2])
end
local head = ARGV[1] .. ':'
local page = redis.call('ZSCAN', KEYS[tonumber(ARGV[3])], ARGV[4], 'COUNT', 500)
for i = 1, #page[2], 2 do
  if string.sub(page[2][i], 1, #head) == head then
    redis.call('ZADD', KEYS[2], 0, page[2][i])
  end
end
if redis.call('LLEN', KEYS[4]) == 0 then
  redis.call('LPUSH', KEYS[4], '1')
end
return { page[1], before }
