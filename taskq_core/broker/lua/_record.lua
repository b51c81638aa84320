-- record: return the record of a task's attempts with one more line, as field and value to write; nothing for an empty
-- line. The oldest lines are removed while all take more than 16 KiB, but never the last line. With `is_first` no record
-- exists yet.
local function record(task_key, line, is_first)
  if line == '' then
    return
  end
  local lines = not is_first and redis.call('HGET', task_key, 'taskq_attempts')
  lines = lines and lines .. '\n' .. line or line
  while #lines > 16384 do
    local ends = string.find(lines, '\n', 1, true)
    if not ends then
      break
    end
    lines = string.sub(lines, ends + 1)
  end
  return 'taskq_attempts', lines
end
