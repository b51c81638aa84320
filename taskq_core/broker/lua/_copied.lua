-- is_copied: return whether a task is the archived original of a copy in another queue. The record (see `copy_out`)
-- counts only while the task is archived with the error text that names its copy: a user of Asynq's tools may have run
-- the original again. A record that cannot be read counts.
local function is_copied(state, message, record)
  if not record or state ~= 'archived' then
    return false
  end
  local target = string.match(record, '^%x+:%x*:%d+:%d+:%d+:%l+:[^:]*:(.*)$')
  local text = target and 'copied to queue ' .. target .. ' with the same id; move it again to finish'
  return not text or string.sub(message or '', -#text) == text
end
