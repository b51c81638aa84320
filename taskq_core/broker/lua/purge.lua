--[[
  purge: delete the remaining keys of a removed queue: counters, locks, marks. Each call scans one page of all keys in
  Redis.

  KEYS[1]  list    active tasks
  KEYS[2]  list    pending tasks
  KEYS[3]  zset    scheduled
  KEYS[4]  zset    retry
  KEYS[5]  zset    archived
  KEYS[6]  zset    completed
  KEYS[7]  set     names of groups with members
  KEYS[8]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[9]  zset    quarantine
  ARGV[1]  string  cursor: '0' to begin, then the one that the previous call returned
  ARGV[2]  string  pattern of the keys to delete
  ARGV[3]  int     approximate number of keys to scan
  ARGV[4]  string  prefix of the keys that match the pattern

  Records of started steps and outcomes of steps are not deleted if their workflow has another home queue. The
  dispatcher of that home queue reads and then deletes these records.

  The keys of queue "a}:b" also match the pattern of queue "a". The script does not delete these keys.

  returns  the next cursor ('0' at the end), or nothing if tasks were enqueued in the meantime, so that the queue is in use
]]
if redis.call('EXISTS', unpack(KEYS)) > 0 then
  return false
end

-- keep_elsewhere: remove started steps from the list, except steps of workflows that have another home queue.
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
