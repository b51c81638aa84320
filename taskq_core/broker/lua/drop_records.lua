--[[
  drop_records: delete records of steps and emitted values that belong to no task, because another program deleted their
  task.

  KEYS[1..] hash or stream  steps records and emitted values (at most 50)
  ARGV[1]  string  prefix of the queue's keys
  ARGV[2]  string  prefix of the queue's taskq-only keys
  ARGV[3]  int     1 to delete them, 0 only to report
  ARGV[4]  int     number of records; in a cluster there is one more key

  returns  per record  1 no task has it   0 a task has it, or it does not exist
]]
-- include _record_owner
local reply = {}
for i = 1, tonumber(ARGV[4]) do
  local is_gone = redis.call('EXISTS', KEYS[i]) == 1 and is_unowned(ARGV[1], ARGV[2], KEYS[i])
  reply[i] = is_gone and 1 or 0
  if is_gone and ARGV[3] == '1' then
    redis.call('UNLINK', KEYS[i])
  end
end
return table.concat(reply)
