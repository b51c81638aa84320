--[[
  purge: delete what is left of a queue that was removed: counters, locks, marks. Goes through the keys of the server
  step by step.

  KEYS[1]  list    active tasks
  KEYS[2]  list    pending tasks
  KEYS[3]  zset    scheduled
  KEYS[4]  zset    retry
  KEYS[5]  zset    archived
  KEYS[6]  zset    completed
  KEYS[7]  set     names of groups with members
  KEYS[8]  zset    groups that are being turned into one task
  KEYS[9]  zset    quarantine
  KEYS[10] zset    tasks on their way to another queue
  ARGV[1]  string  where to go on, '0' at the start
  ARGV[2]  string  pattern of the keys to delete
  ARGV[3]  int     keys to look at in about
  ARGV[4]  string  what the pattern's keys begin with

  Ends and starts of steps whose workflows have another home queue are not deleted: the dispatcher that
  looks after their home reads it, and deletes it so.

  A queue whose name goes on behind this one's with a brace, as "a}:b" for "a", has keys that begin alike: left alone.

  returns  where to go on ('0' at the end), or nothing if tasks were enqueued since: then the queue lives on
]]
if redis.call('EXISTS', unpack(KEYS)) > 0 then
  return false
end

-- keep_elsewhere: of the steps that were started here, keep those of workflows at home in other queues.
local function keep_elsewhere(steps)
  local home, at = ' ' .. ARGV[4] .. 'wf:', 0
  for _ = 1, 100 do
    local members = redis.pcall('ZRANGE', steps, at, at + 199)
    if members.err or #members == 0 then
      return not members.err
    end
    for _, step in ipairs(members) do
      at = at + 1
      if string.find(step, home, 1, true) then
        redis.call('ZREM', steps, step)
        at = at - 1
      end
    end
  end
  return true
end

local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
for _, key in ipairs(page[2]) do
  local rest = string.sub(key, #ARGV[4] + 1)
  local named = string.match(rest, '^t:') or string.match(rest, '^g:') or string.match(rest, '^unique:')
  local is_kept = rest == 'wf-notes' or (rest == 'wf-steps' and keep_elsewhere(key))
  if not is_kept and (named or not string.find(rest, '}:', 1, true)) then
    redis.call('UNLINK', key)
  end
end
return page[1]
