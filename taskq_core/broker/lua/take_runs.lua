--[[
  take_runs: read the run counts of schedule entries that the database table of the entries has not recorded yet.

  The counts that were read stay in Redis, separate from the counts of later runs, until acknowledge_runs deletes them.
  If a caller dies before the database table has recorded the counts, the next caller reads the same counts.

  KEYS[1]    hash  runs: "<count>:<last>:<count to report>:<last to report>" by entry name; last is a firing (Unix s)
  ARGV[1..]        names of entries

  The caller passes at most 500 names.

  returns  "<count to report>:<last to report>" per name, '' without runs
]]
local reply = {}
local kind = redis.call('TYPE', KEYS[1])
local is_hash = (kind.ok or kind) == 'hash'
for i = 1, #ARGV do
  reply[i] = ''
  local fresh, told = string.match(is_hash and redis.call('HGET', KEYS[1], ARGV[i]) or '', '^(%d+:%d+):(%d+:%d+)$')
  if fresh and told == '0:0' then
    told = fresh
    redis.call('HSET', KEYS[1], ARGV[i], '0:0:' .. told)
  end
  if told and told ~= '0:0' then
    reply[i] = told
  end
end
return reply
