-- limiter: return the functions that apply limits: sequences, concurrency limits and rate limits. They are created at
-- their first use, so a script call without limited tasks costs nothing. All keys begin with `prefix` and are in one
-- cluster slot. A taskq-only key of another type is overwritten. The caller has already made a write after which even a
-- full Redis allows the writes of these functions. Needs the files `_clock` and `_place`.
--
-- The field taskq_limit of a task contains its limits, one per line, in the order in which it takes their permits:
--   s <block or skip> 1 <name>:<key>           a sequence: one task at a time, in order
--   c <permits> 1 <name>:<key>                 maximum number of concurrent tasks
--   r b/<tokens>/<ms>/<burst> <cost> <name>:<key>   token bucket       r w/<limit>/<ms> <cost> <name>:<key>   fixed window
-- There is at most one `r`, and it comes last, so that no task keeps tokens while it waits for another limit. The field
-- taskq_permit is the number of limits of which the task holds a permit, followed by '!' if a user makes it run despite its
-- limits. The field taskq_line is the slot for which the task waits. A slot is a limit with its key. The field taskq_paid is
-- '1' for a durable task that waits or wakes up: its next run takes no tokens of the rate.
--   limits           hash  'd:<kind>:<name>' value that workers declare, 'o:<kind>:<name>' value that users set, 'n' the
--                          last number given out for a waiting line
--   lim:h:<slot>     zset  ids of tasks that hold a permit, by time (Unix s); for a rate: pending tasks only, by cost
--   lim:w:<slot>     zset  ids of waiting tasks, by number in the line
--   lim:r:<slot>     hash  state of a rate: level, at (Unix ms), held
--   lim:due          zset  slot by time at which its next waiting task may start (Unix ms)
--   lim:check        zset  slot by time at which its holders are checked (Unix ms)
--   lim:wake         list  wake token for the worker that admits tasks
-- A waiting task is also in Asynq's scheduled set, with the last second of the year 9999 as its start.
local function limiter(prefix, now_s, now_ns, now_ms)
  local base, tag = string.match(prefix, '^([^{]*):({.*}:)$')
  local ours = (base == 'asynq' and 'taskq:' or base .. ':taskq:') .. tag
  local lim = ours .. 'lim:'
  local scheduled, pending = prefix .. 'scheduled', prefix .. 'pending'
  local specs, freed, urgent, self = {}, {}, {}, { ready = 0 }

  local function own(command, key, ...)
    local reply = redis.pcall(command, key, ...)
    if type(reply) == 'table' and reply.err then
      if string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then
        redis.call('DEL', key)
      end
      return redis.call(command, key, ...)
    end
    return reply
  end

  local function number(value)
    return string.format('%.17g', value)
  end

  local function chain_of(text)
    local chain = {}
    for kind, spec, cost, slot in string.gmatch(text, '([scr]) (%S+) (%d+) ([^\n]+)') do
      chain[#chain + 1] = { kind = kind, spec = spec, cost = tonumber(cost), slot = kind .. ':' .. slot }
    end
    return chain
  end

  local function spec_of(limit)
    local name = string.match(limit.slot, '^%a:[^:]*')
    local found = specs[name]
    if found == nil then
      local set = own('HMGET', ours .. 'limits', 'o:' .. name, 'd:' .. name)
      found = set[1] or set[2] or false
      specs[name] = found
    end
    return found or limit.spec
  end

  -- rate_of: return the current state of a rate limit. Return nil if the limit was removed.
  local function rate_of(limit)
    local fields = own('HMGET', lim .. limit.slot, 'level', 'at', 'held', 'spec')
    local spec = spec_of(limit)
    spec = spec == '' and fields[4] or spec -- the task with the spec was deleted, so use the stored copy
    local way, tokens, period, burst = string.match(spec, '^([bw])/(%d+)/(%d+)/?(%d*)$')
    tokens, period = tonumber(tokens), tonumber(period)
    if not way or tokens == 0 or period == 0 then -- a forged limit, whose division by 0 would end the script half-way
      return nil
    end
    local rate = {
      key = lim .. limit.slot,
      spec = spec,
      way = way,
      tokens = tokens,
      period = period,
      most = way == 'b' and tonumber(burst) or tokens,
      at = way == 'b' and now_ms or math.floor(now_ms / period) * period,
      held = tonumber(fields[3] or 0) or 0,
    }
    local level, at = tonumber(fields[1] or ''), tonumber(fields[2] or '')
    if not level or not at then
      rate.level = rate.most
    elseif way == 'b' then
      rate.level = math.min(rate.most, level + math.max(0, now_ms - at) * tokens / period)
    else
      rate.level = at == rate.at and math.min(level, rate.most) or rate.most
    end
    return rate
  end

  local function save(rate)
    redis.call('HSET', rate.key, 'level', number(rate.level), 'at', whole(rate.at), 'held', whole(rate.held), 'spec', rate.spec)
    if rate.held > 0 then
      redis.call('PERSIST', rate.key)
    else -- expire the key when its state would equal that of an unused limit
      local full_ms = rate.way == 'b' and (rate.most - rate.level) * rate.period / rate.tokens or rate.period
      redis.call('PEXPIRE', rate.key, whole(math.ceil(full_ms) + 1000))
    end
  end

  local function lacks(rate, cost)
    local lacking = math.min(cost, rate.most) - (rate.level - rate.held)
    return lacking > 0.000001 and lacking or nil
  end

  local function arm(at_ms, slot)
    local is_first = own('ZCOUNT', lim .. 'due', '-inf', whole(at_ms)) == 0
    own('ZADD', lim .. 'due', whole(at_ms), slot)
    if is_first then
      if own('LLEN', lim .. 'wake') == 0 then
        redis.call('LPUSH', lim .. 'wake', '1')
      end
    end
  end

  -- rearm: the first task of a waiting line cannot start now, so record when to check this line again.
  local function rearm(limit)
    local rate = limit.kind == 'r' and rate_of(limit)
    if not rate then
      own('ZADD', lim .. 'check', whole(now_ms + 15000), limit.slot)
      return
    end
    local lacking = lacks(rate, limit.cost) or 0
    if rate.held > 0 and rate.held + math.min(limit.cost, rate.most) > rate.most then
      own('ZADD', lim .. 'check', whole(now_ms + 15000), limit.slot) -- first, workers must take the admitted tasks
    elseif rate.way == 'b' then
      arm(now_ms + math.max(1, math.ceil(lacking * rate.period / rate.tokens)), limit.slot)
    else
      arm(rate.at + rate.period, limit.slot)
    end
  end

  local function take(limit, id)
    local holders = lim .. 'h:' .. limit.slot
    if limit.kind == 'r' then
      local rate = rate_of(limit)
      if rate then
        if lacks(rate, limit.cost) then
          return false
        end
        rate.held = rate.held + limit.cost
        save(rate)
        own('ZADD', holders, whole(limit.cost), id)
      end
      return true
    end
    local permits = limit.kind == 's' and 1 or tonumber(spec_of(limit))
    if permits and own('ZCARD', holders) >= permits and not own('ZSCORE', holders, id) then
      return false
    end
    own('ZADD', holders, whole(now_s), id)
    return true
  end

  local function free(limit, id)
    local holders = lim .. 'h:' .. limit.slot
    local cost = own('ZSCORE', holders, id)
    if not cost then
      return
    end
    redis.call('ZREM', holders, id)
    if limit.kind == 'r' then
      local rate = rate_of(limit)
      if rate then
        rate.held = math.max(0, rate.held - tonumber(cost))
        save(rate)
      end
    end
    freed[#freed + 1] = limit.slot
  end

  -- spend: subtract the tokens that were reserved for a task, because a worker takes the task.
  local function spend(limit, id)
    local holders = lim .. 'h:' .. limit.slot
    local rate = rate_of(limit)
    local cost = own('ZSCORE', holders, id)
    if cost then
      redis.call('ZREM', holders, id)
    end
    if rate then
      rate.level = rate.level - limit.cost
      rate.held = cost and math.max(0, rate.held - tonumber(cost)) or rate.held
      save(rate)
      if own('ZCARD', lim .. 'w:' .. limit.slot) > 0 then -- cost is 1 until the check of the line reads it
        rearm({ kind = 'r', slot = limit.slot, spec = limit.spec, cost = 1 })
      end
    end
  end

  local function park(id, key, chain, stage, in_front)
    local limit = chain[stage]
    local line = lim .. 'w:' .. limit.slot
    if in_front then
      local first = own('ZRANGE', line, 0, 0, 'WITHSCORES')[2]
      own('ZADD', line, whole((tonumber(first) or 0) - 1), id)
    else
      own('ZADD', line, 'NX', own('HINCRBY', ours .. 'limits', 'n', 1), id)
    end
    redis.call('ZADD', scheduled, far_s, id)
    redis.call('HSET', key, 'state', 'scheduled', 'taskq_permit', whole(stage - 1), 'taskq_line', limit.slot)
    redis.call('HDEL', key, 'pending_since', 'taskq_owner', 'taskq_started', 'taskq_cancel')
    rearm(limit)
  end

  local function enter(id, key, chain, held, in_front)
    for stage = held + 1, #chain do
      local limit = chain[stage]
      if limit.kind == 'r' and redis.call('HGET', key, 'taskq_paid') then
        break -- it is the last limit
      end
      local waiting = own('ZCARD', lim .. 'w:' .. limit.slot)
      if waiting == 1 and own('ZSCORE', lim .. 'w:' .. limit.slot, id) then
        waiting = 0
        redis.call('ZREM', lim .. 'w:' .. limit.slot, id)
      end
      if waiting > 0 or not take(limit, id) then
        park(id, key, chain, stage, in_front)
        return false
      end
    end
    redis.call('HSET', key, 'taskq_permit', whole(#chain))
    redis.call('HDEL', key, 'taskq_line')
    return true
  end

  local function held_of(permit)
    local held, pass = string.match(permit or '', '^(%d+)(!?)$')
    return tonumber(held or 0), pass == '!'
  end

  -- enter: take permits for a new task. Return false if the task has to wait.
  function self.enter(id, key, text)
    return enter(id, key, chain_of(text), 0)
  end

  -- release_permits: release the permits of a task, and remove the task from its waiting line. With `keep` 'retry', the
  -- task keeps its permit of a sequence. With 'archive', it keeps this permit if the sequence blocks after a failure.
  -- With nil, it keeps no permit.
  function self.release_permits(id, key, keep)
    local fields = redis.pcall('HMGET', key, 'taskq_limit', 'taskq_permit', 'taskq_line')
    if not fields[1] or not (fields[2] or fields[3]) then
      return 0
    end
    local chain, held = chain_of(fields[1]), held_of(fields[2])
    if fields[3] then
      own('ZREM', lim .. 'w:' .. fields[3], id)
    end
    local first, kept = chain[1], 0
    if first and first.kind == 's' and held > 0 then
      if keep == 'retry' or (keep == 'archive' and spec_of(first) == 'block') then
        kept = 1
      end
    end
    for stage = kept + 1, math.min(held, #chain) do
      free(chain[stage], id)
    end
    redis.call('HDEL', key, 'taskq_permit', 'taskq_line')
    if kept > 0 then
      redis.call('HSET', key, 'taskq_permit', '1')
    end
    return kept
  end

  -- again: take permits for a task whose start or next attempt is due. Return false if the task has to wait.
  function self.again(id, key, text)
    return enter(id, key, chain_of(text), self.release_permits(id, key, 'retry'))
  end

  -- back: take new rate tokens for a task that a worker requeues. The task keeps its other permits. Return false if the
  -- task has to wait.
  function self.back(id, key)
    local fields = redis.call('HMGET', key, 'taskq_limit', 'taskq_permit')
    local chain = chain_of(fields[1] or '')
    local held, pass = held_of(fields[2])
    local last = chain[#chain]
    if pass or not last or last.kind ~= 'r' or held < #chain then
      return true
    end
    return enter(id, key, chain, held - 1, true)
  end

  -- hand_out: return whether a worker may run a task that it has taken. If not, the task waits.
  function self.hand_out(id, key, text, permit)
    local chain = chain_of(text)
    local held, pass = held_of(permit)
    if pass then
      return true
    elseif held < #chain and not enter(id, key, chain, held) then
      return false -- Go's forwarder or a user made the task pending without its limits
    end
    local last = chain[#chain]
    if last and last.kind == 'r' and redis.call('HDEL', key, 'taskq_paid') == 0 then
      spend(last, id)
    end
    return true
  end

  -- pass: let a task run despite its limits. The task leaves its waiting line and keeps the permits that it holds.
  function self.pass(id, key)
    local fields = redis.pcall('HMGET', key, 'taskq_limit', 'taskq_permit', 'taskq_line')
    if fields[1] then
      if fields[3] then
        own('ZREM', lim .. 'w:' .. fields[3], id)
        redis.call('HDEL', key, 'taskq_line')
      end
      redis.call('HSET', key, 'taskq_permit', whole(held_of(fields[2])) .. '!')
    end
  end

  -- admit: take permits for the first tasks of a waiting line, as long as the limit allows more tasks.
  function self.admit(slot)
    local line = lim .. 'w:' .. slot
    for _ = 1, 100 do
      local id = own('ZRANGE', line, 0, 0)[1]
      if not id then
        own('ZREM', lim .. 'due', slot)
        own('ZREM', lim .. 'check', slot)
        return
      end
      local key = prefix .. 't:' .. id
      local fields = redis.pcall('HMGET', key, 'taskq_limit', 'taskq_permit', 'taskq_line', 'taskq_priority')
      local chain = chain_of(fields[1] or '')
      local stage = held_of(fields[2]) + 1
      local limit = chain[stage]
      if fields[3] ~= slot or not limit or limit.slot ~= slot or redis.call('ZSCORE', scheduled, id) ~= far_s then
        redis.call('ZREM', line, id) -- the task no longer waits in this line
      elseif not take(limit, id) then
        rearm(limit)
        return
      else
        redis.call('ZREM', line, id)
        redis.call('HSET', key, 'taskq_permit', whole(stage))
        if enter(id, key, chain, stage) then
          redis.call('ZREM', scheduled, id)
          redis.call('HSET', key, 'state', 'pending', 'pending_since', now_ns)
          local band = band_of(fields[4], false)
          if band > 0 then
            urgent[band] = urgent[band] or {}
            table.insert(urgent[band], id)
          else
            redis.call('LPUSH', pending, id)
          end
          self.ready = self.ready + 1
        end
      end
    end
    arm(now_ms, slot)
  end

  -- verify: release the permits of tasks that are neither active nor pending.
  function self.verify(slot)
    local kind, freed_here = string.sub(slot, 1, 1), 0
    local holders = lim .. 'h:' .. slot
    for _, id in ipairs(own('ZRANGE', holders, 0, 49)) do
      local fields = redis.pcall('HMGET', prefix .. 't:' .. id, 'state', 'taskq_permit', 'taskq_limit', 'taskq_line')
      local holds, state, held, spec = false, fields[1], held_of(fields[2]), ''
      for stage, limit in ipairs(chain_of(fields[3] or '')) do
        if limit.slot == slot and stage <= held then
          holds, spec = true, spec_of(limit)
        end
      end
      if kind == 'r' then
        holds = holds and state == 'pending'
      elseif kind == 'c' then
        holds = holds and (state == 'active' or state == 'pending' or (state == 'scheduled' and fields[4]))
      else
        holds = holds and state ~= 'completed' and (state ~= 'archived' or spec == 'block')
      end
      if not holds then
        if state and state ~= 'active' and state ~= 'pending' then -- a worker that does not know limits ended the task
          self.release_permits(id, prefix .. 't:' .. id, state == 'archived' and 'archive' or state ~= 'completed' and 'retry')
        end
        free({ kind = kind, slot = slot, spec = '', cost = 0 }, id)
        freed_here = freed_here + 1
      elseif kind ~= 'r' then
        redis.call('ZADD', holders, whole(now_s), id)
      end
    end
    return freed_here
  end

  -- wake_limiter: wake a worker to admit the tasks that wait for released permits. This script does not admit the tasks
  -- itself, because a Redis user who may only enqueue cannot read the line.
  function self.wake_limiter()
    for _, slot in ipairs(freed) do
      if own('ZCARD', lim .. 'w:' .. slot) > 0 then
        arm(0, slot)
      end
    end
  end

  -- prune: remove tasks from a waiting line that no longer wait, for example because Go has deleted them. Each call
  -- checks 50 tasks.
  function self.prune(slot)
    local line = lim .. 'w:' .. slot
    local size = own('ZCARD', line)
    local first = size > 50 and now_s * 7919 % size or 0 -- in a long line, check another part each second
    for _, id in ipairs(redis.call('ZRANGE', line, whole(first), whole(first + 49))) do
      if redis.pcall('HGET', prefix .. 't:' .. id, 'taskq_line') ~= slot or redis.call('ZSCORE', scheduled, id) ~= far_s then
        redis.call('ZREM', line, id)
      end
    end
  end

  -- finish: admit tasks that wait for released permits, and wake workers. This is the last function that a script
  -- calls.
  function self.finish()
    local known = {}
    for _, slot in ipairs(freed) do
      if not known[slot] then
        known[slot] = true
        self.admit(slot)
      end
    end
    place_all(pending, ours .. 'wake', prefix .. 't:', now_ms, urgent)
    if self.ready > 0 and own('LLEN', ours .. 'wake') == 0 then
      redis.call('LPUSH', ours .. 'wake', '1')
    end
  end

  self.lim, self.own = lim, own
  return self
end
