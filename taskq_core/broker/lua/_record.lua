-- record_attempt: add a line to what is known of a task's attempts. The oldest go once all take more than 16 KiB, but for
-- the last. The caller has written to the task already, so Redis accepts this also over maxmemory.
local function record_attempt(task_key, line)
  if line == '' then
    return
  end
  local lines = redis.call('HGET', task_key, 'taskq_attempts')
  lines = lines and lines .. '\n' .. line or line
  while #lines > 16384 do
    local ends = string.find(lines, '\n', 1, true)
    if not ends then
      break
    end
    lines = string.sub(lines, ends + 1)
  end
  redis.call('HSET', task_key, 'taskq_attempts', lines)
end
