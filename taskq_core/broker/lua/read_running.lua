--[[
  read_running: read the running tasks of a worker process. Records of Go workers contain the payload of the task.
  Changes nothing.

  KEYS[1]  hash    running tasks of the process: WorkerInfo by task id
  ARGV[1]  int     largest record to read, in bytes. Larger records are left out

  returns  the records, at most the concurrency of the process
]]
local size = redis.pcall('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0) -- of all records. pcall: some servers do not have it
if type(size) == 'number' and size <= tonumber(ARGV[1]) then
  return redis.call('HVALS', KEYS[1])
end
local records = {}
for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
  if redis.call('HSTRLEN', KEYS[1], id) <= tonumber(ARGV[1]) then
    records[#records + 1] = redis.call('HGET', KEYS[1], id)
  end
end
return records
