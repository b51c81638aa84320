-- new_batch: collects new tasks that are pending, and puts them into the list at once. Needs `_wake`; tasks with a priority
-- also need `_place`, whose `place_all` is given.
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
      wake(wake_key) -- first: who waits for a token is served before who watches for tasks that come without one
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
