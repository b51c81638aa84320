-- wait_of: return the wait of a scheduled task as "<end, Unix ms, or '-'> <wait>", see `_steps`; '' without a wait.
-- `mark` is the task's field taskq_steps.
local function wait_of(own, id, mark)
  local record = own .. 'steps:' .. id
  local found = mark and redis.pcall('HMGET', record, 'of', 'waiting')
  if not found or found[1] ~= mark or not found[2] then
    return ''
  end
  local until_ms = string.match(redis.call('HGET', record, 'u:' .. found[2]) or '', '^%S+')
  return (until_ms or '-') .. ' ' .. found[2]
end
