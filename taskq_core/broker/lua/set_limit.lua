--[[
  set_limit: set or clear the number of a limit, and check the tasks that wait for it: a page of the slots.

  KEYS[1]  hash    limits that code declares ('d:') and that users set ('o:')
  KEYS[2]  zset    slots by when the next of their line may start (Unix ms)
  KEYS[3]  zset    slots by when their holders are looked at (Unix ms)
  KEYS[4]  list    token for the worker that admits
  ARGV[1]  string  kind and name
  ARGV[2]  string  what holds from now on, '' what is declared
  ARGV[3]  string  which slots to go through: 2 or 3, as KEYS
  ARGV[4]  string  cursor of them: '0' to begin, then what the call before returned

  returns  the next cursor ('0' at the end), what was set before ('' nothing)
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
