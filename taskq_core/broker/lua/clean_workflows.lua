--[[
  clean_workflows: delete ended workflows whose retention has ended.

  KEYS[1]  zset    ended workflows: id by end of retention (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  int     maximum number of workflows to delete

  returns  number of deleted workflows
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
