-- worker_of: return the token of the worker that holds a task, read from the task's fence. Return nil if the fence
-- belongs to another lease. A fence is "<token>.<run>:<lease>". Releases before 0.2 write "<token>:<lease>".
local function worker_of(fence, lease)
  local owner, of_lease = string.match(type(fence) == 'string' and fence or '', '^(.*):(%d+)$')
  if of_lease == lease then
    return string.match(owner, '^(.*)%.%d+$') or owner
  end
end
