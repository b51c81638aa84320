-- lateness: check the deadline of a request (Unix ms by Redis's clock, or ''). Returns an error reply with Redis's
-- time if the deadline has passed, or is further ahead than any caller sets it, as after a jump of the clock. A caller
-- that still waits sets a new deadline from this time and sends the request again. A request that arrives after its
-- deadline must change nothing, because the record by which its repeat is recognized may have expired.
local function lateness(deadline, now_ms)
  if deadline ~= '' then
    local left_ms = tonumber(deadline) - now_ms
    if left_ms < 0 or left_ms > 110000 then
      return redis.error_reply('TASKQLATE ' .. whole(now_ms))
    end
  end
end
