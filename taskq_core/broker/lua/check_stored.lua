--[[
  check_stored: read some tasks of the queue, wherever they are listed, and tell where each stands. Reads only.

  KEYS[1]  zset    leases: id by expiry (Unix s)
  KEYS[2]  set     names of groups with members
  ARGV[1]  string  cursor of the scan over all keys: '0' to begin, then what the call before returned
  ARGV[2]  int     about how many keys to look at
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  string  pattern that task keys match
  ARGV[5]  int     largest message to return, in bytes

  returns  the next cursor ('0' at the end), then per task: id, state ('' none, '!' the key is no hash), message ('' none
           or too large), pending_since ('' none), and where its state says that it is:
             1  listed there     0  not listed there     ?  a list, not looked through
]]
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[4], 'COUNT', ARGV[2])
local reply = { page[1] }
local skip, limit = #ARGV[3] + 3, tonumber(ARGV[5])
local sets = { scheduled = true, retry = true, archived = true, completed = true }
for _, key in ipairs(page[2]) do
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
return reply
