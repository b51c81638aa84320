--[[
  check_stored: scan the keys of a queue's tasks, and report whether each task is in the list or set of its state. Also
  report damaged unique locks and aggregation sets, and records of steps without a task. Changes nothing.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  KEYS[2]  set     names of groups with members
  KEYS[3]  zset    aggregation sets: key by deadline (Unix s)
  KEYS[4]  zset    aggregation sets of a queue that is being removed
  KEYS[5]  set     names of groups of a queue that is being removed
  ARGV[1]  string  cursor of the scan over all keys: '0' to begin, then the one that the previous call returned
  ARGV[2]  int     approximate number of keys to scan
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  string  pattern that the keys of tasks, groups, locks and records match
  ARGV[5]  int     largest message to return, in bytes
  ARGV[6]  string  prefix of the queue's taskq-only keys

  returns  the next cursor ('0' at the end), keys of locks that are not strings, keys of aggregation sets that are missing
           in KEYS[3], locks whose holder may not hold them, tasks that have lost a lock, records of steps
           and emitted values that belong to no task, then per task: id, state ('' if
           unknown, '!' if the key is not a hash), message ('' if missing or too large), pending_since ('' unknown), and:
             1  it is in the structure of its state     0  it is not     ?  its state has a list, which was not searched
]]
-- include _orphan
-- include _record_owner
local unique_prefix = ARGV[3] .. 'unique:'
-- include _unique
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[4], 'COUNT', ARGV[2])
local locks, orphans, unheld, unlocked, records = {}, {}, {}, {}, {}
local reply = { page[1], locks, orphans, unheld, unlocked, records }
local skip, limit = #ARGV[3] + 3, tonumber(ARGV[5])
local sets = { scheduled = true, retry = true, archived = true, completed = true }

local function read(key)
  local id = string.sub(key, skip)
  local fields = redis.pcall('HMGET', key, 'state', 'group', 'pending_since')
  local state, message, since, place = '!', '', '', '0'
  if not fields.err then
    state, since = fields[1] or '', fields[3] or ''
    if state == '!' then
      state = ''
    end
    local size = redis.call('HSTRLEN', key, 'msg')
    if size > 0 and size <= limit then
      message = redis.call('HGET', key, 'msg')
    end
    if size == 0 then
      place = '0'
    elseif state == 'pending' then
      place = '?'
    else
      local score
      if state == 'active' then
        score = redis.pcall('ZSCORE', KEYS[1], id)
      elseif sets[state] then
        score = redis.pcall('ZSCORE', ARGV[3] .. state, id)
      elseif state == 'aggregating' and fields[2] then
        score = redis.pcall('SISMEMBER', KEYS[2], fields[2]) == 1
          and redis.pcall('ZSCORE', ARGV[3] .. 'g:' .. fields[2], id)
      end
      place = type(score) == 'string' and '1' or '0'
    end
  end
  reply[#reply + 1] = id
  reply[#reply + 1] = state
  reply[#reply + 1] = message
  reply[#reply + 1] = since
  reply[#reply + 1] = place
end

for _, key in ipairs(page[2]) do
  local kind = string.sub(key, #ARGV[3] + 1, #ARGV[3] + 2)
  if string.sub(key, 1, #ARGV[3]) ~= ARGV[3] then
    if string.sub(key, 1, #ARGV[6]) == ARGV[6] and is_unowned(ARGV[3], ARGV[6], key) then
      records[#records + 1] = key
    end
  elseif kind == 't:' then
    read(key)
    if lost_lock(key) then
      unlocked[#unlocked + 1] = key
    end
  elseif kind == 'g:' then
    if is_orphan(ARGV[3], KEYS[3], KEYS[2], { KEYS[4], KEYS[5] }, key) then
      orphans[#orphans + 1] = key
    end
  elseif string.sub(key, 1, #unique_prefix) == unique_prefix then
    local holder = redis.pcall('GET', key)
    if type(holder) == 'table' then
      locks[#locks + 1] = key
    elseif holder and not is_held(key, ARGV[3] .. 't:' .. holder) then
      unheld[#unheld + 1] = key
    end
  end
end
return reply
