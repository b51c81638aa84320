--[[
  clean_workflows: delete workflows that are kept no longer.

  KEYS[1]  zset    workflows that have ended: id by the second they are kept until
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2]  string  what the own keys of the queue begin with
  ARGV[3]  int     most workflows to delete

  returns  workflows deleted
]]
-- include _clock
local now_s = clock(ARGV[1])
local ids = redis.call('ZRANGE', KEYS[1], '-inf', whole(now_s), 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
  local key = ARGV[2] .. 'wf:' .. id
  local groups = redis.pcall('HGET', key, 'groups')
  for i in string.gmatch(type(groups) == 'string' and groups or '', '%d+') do
    redis.call('UNLINK', key .. ':h' .. i, key .. ':g' .. i, key .. ':f' .. i, key .. ':d' .. i, key .. ':x' .. i)
  end
  redis.call('UNLINK', key .. ':q', key)
  redis.call('ZREM', KEYS[1], id)
end
return #ids
