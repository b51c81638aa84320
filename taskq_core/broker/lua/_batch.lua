-- new_batch: return an object that collects new pending tasks and then adds all of them to the pending list. Needs the
-- file `_wake`. For tasks with a priority, the caller also passes the function `place_all` of `_place`.
local function new_batch()
  local plain, urgent, size = {}, {}, 0
  local batch = {}

  function batch.add(id, band)
    size = size + 1
    if band and band > 0 then
      urgent[band] = urgent[band] or {}
      table.insert(urgent[band], id)
    else
      plain[#plain + 1] = id
    end
  end

  function batch.push(pending, wake_key, task_prefix, now_ms, place_all)
    if size > 0 then
      wake(wake_key) -- before the tasks are pushed, so that a waiting worker gets them before a polling worker
    end
    for i = 1, #plain, 200 do
      redis.call('LPUSH', pending, unpack(plain, i, math.min(i + 199, #plain)))
    end
    if size > #plain then
      place_all(pending, wake_key, task_prefix, now_ms, urgent)
    end
  end

  return batch
end
