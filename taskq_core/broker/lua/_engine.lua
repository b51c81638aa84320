-- Included files and setup code of the scripts that change workflows. The home queue of a workflow is the queue whose
-- keys contain the workflow.
-- include _check
-- include _clock
-- include _lock
-- include _marks
-- include _place
-- include _held
-- include _copied
local limiter -- steps are stored without limits, so `_store` does not need the file `_limits`
-- include _store
-- include _wake
-- include _steps
-- include _resume
-- include _flow

-- engine: check the types of the keys that are needed to start a step. Return the workflow functions of a home queue
-- (see `_flow`), and Redis's time.
local function engine(own, override)
  local now_s, now_ns, now_ms = clock(override)
  local flow = workflows(own, { s = now_s, ns = now_ns, ms = now_ms })
  check('LLEN', flow.prefix .. 'pending', own .. 'wake')
  check('ZCARD', flow.prefix .. 'scheduled', own .. 'wf-steps', own .. 'wf-out')
  return flow, now_s, now_ms
end
