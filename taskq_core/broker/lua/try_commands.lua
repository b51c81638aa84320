--[[
  try_commands: find out which commands of taskq's scripts this Redis user may not run. The script deletes the keys that
  it creates. If EXISTS or DEL is refused, the script tries no other command.

  KEYS[1]  a key that does not exist; if it exists, nothing is tried
  ARGV[1]  string  channel that receives an empty message

  returns  per refused command: name, error of Redis
]]
local key = KEYS[1]
if redis.pcall('EXISTS', key) == 1 then
  return {}
end
local probes = {
  'EXISTS KEY', 'DEL KEY', 'EXPIRE KEY 1', 'EXPIREAT KEY 1', 'GET KEY', 'GETBIT KEY 0', 'GETEX KEY', 'HDEL KEY x', 'HEXISTS KEY x',
  'HGET KEY x', 'HGETALL KEY',
  'HINCRBY KEY x 1', 'HKEYS KEY', 'HLEN KEY', 'HMGET KEY x', 'HSCAN KEY 0', 'SETBIT KEY 1 1',
  'HSET KEY x 1', 'HSETNX KEY x 1', 'HSTRLEN KEY x', 'HVALS KEY', 'INCRBY KEY 1', 'LINDEX KEY 0',
  'LINSERT KEY BEFORE x x', 'LLEN KEY',
  'LPOS KEY x', 'LPUSH KEY x', 'LRANGE KEY 0 0', 'LREM KEY 1 x', 'LTRIM KEY 0 0', 'MEMORY USAGE KEY', 'MGET KEY',
  'PERSIST KEY',
  'PEXPIRE KEY 1', 'PTTL KEY', 'RENAME KEY KEY',
  'RPOP KEY', 'RPUSH KEY x', 'SADD KEY x', 'SCAN 0 COUNT 1', 'SCARD KEY', 'SET KEY x', 'SISMEMBER KEY x',
  'SMEMBERS KEY', 'SRANDMEMBER KEY', 'SREM KEY x', 'SSCAN KEY 0', 'TIME', 'TYPE KEY', 'UNLINK KEY', 'ZADD KEY 1 x',
  'ZCARD KEY', 'ZCOUNT KEY 0 1', 'ZMSCORE KEY x', 'ZPOPMIN KEY', 'ZRANGE KEY 0 0', 'ZRANGESTORE KEY KEY 0 0',
  'ZRANK KEY x', 'ZREM KEY x', 'ZREMRANGEBYRANK KEY 0 0', 'ZREMRANGEBYSCORE KEY 0 0', 'ZSCAN KEY 0',
  'ZSCORE KEY x', 'XADD KEY * x x', 'XLEN KEY', 'XRANGE KEY - +',
  'PUBLISH CHANNEL ',
}
local refused = {}
for _, probe in ipairs(probes) do
  local words = {}
  for word in string.gmatch(probe, '[^ ]+') do
    words[#words + 1] = word == 'KEY' and key or word == 'CHANNEL' and ARGV[1] or word
  end
  if words[1] == 'PUBLISH' then
    words[3] = ''
  end
  local reply = redis.pcall(unpack(words))
  local said = type(reply) == 'table' and type(reply.err) == 'string' and reply.err or ''
  if string.find(said, 'ACL failure', 1, true) or string.find(said, 'executing the script can', 1, true) then
    refused[#refused + 1] = words[1]
    refused[#refused + 1] = said
    if words[1] == 'EXISTS' or words[1] == 'DEL' then
      return refused -- stop, because keys that the other commands create could not be deleted
    end
  end
  redis.pcall('DEL', key) -- no other client has seen the key, because a script is atomic
end
return refused
