-- record: add a line to the record of a task's attempts. Return the field and the new value, which the caller writes,
-- or nothing for an empty line. If the record exceeds 16 KiB, its oldest lines are removed, but never the new line. If
-- `is_first` is true, the task has no record yet.
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
