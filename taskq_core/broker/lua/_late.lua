-- lateness: check the deadline of a request (Unix ms by Redis's clock, or ''). Return an error reply with Redis's time
-- if the deadline has passed. Also return it if the deadline is further ahead than any caller sets a deadline, which
-- happens after a jump of the clock. A caller that still waits computes a new deadline from the time in the reply, and
-- sends the request again. A request that arrives after its deadline must change nothing, because the stored record by
-- which a repeat is recognized may have expired. Needs the file `_clock`.
local function lateness(deadline, now_ms)
  if deadline ~= '' then
    local left_ms = tonumber(deadline) - now_ms
    if left_ms < 0 or left_ms > 110000 then
      return redis.error_reply('TASKQLATE ' .. whole(now_ms))
    end
  end
end
