-- is_cancelled: return whether a workflow step belongs to a cancelled workflow. If it does, also remove the step from
-- the started steps of the queue. `wake` is the key of the queue's wake tokens. `step` is the field taskq_step of the
-- step's task, see `_flow`.
local function is_cancelled(wake, step)
  local own = string.sub(wake, 1, -5)
  local workflow = string.match(step, '^%S+ %a %S+ (.+)$') or ''
  local state = string.sub(workflow, 1, #own + 3) == own .. 'wf:' and redis.pcall('HGET', workflow, 'state')
  local cancelled = state == 'cancelled'
  if type(state) ~= 'string' then -- the workflow has another home queue, or was deleted
    cancelled = redis.call('EXISTS', own .. 'wf-cancelled:' .. (string.match(workflow, ':wf:([^:]+)$') or '')) == 1
  end
  if cancelled then
    redis.call('ZREM', own .. 'wf-steps', step)
  end
  return cancelled
end
