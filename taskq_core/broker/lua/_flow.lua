-- Functions for workflows: start, skip and finish steps after another step has ended. Needs the files `_clock`,
-- `_lock`, `_marks`, `_place`, `_resume`, `_steps`, `_store` and `_wake`.
--
-- A workflow is a hash W, `<own>wf:<id>`, in the slot of its home queue. A node is a step, or a group of steps, with a
-- number i. The hash contains for each node:
--   s<i>  state: w waits for parents   p started   h to be sent to another queue   d done   f failed   x skipped
--         c cancelled
--   p<i>  number of parents that have not ended
--   b<i>  number of parents because of which the node is skipped
--   y<i>  number of failed parents after which the node runs
--   q<i>  '1' if the node only runs after a failure
--   c<i>  children, each as "<j><edge> "; edge: s runs after success only   f runs after a failure only
--         c runs after success or failure   z as c, but the workflow still fails
--   t<i>  '1' if the workflow ignores the failure of the node
--   m<i>  packed task to enqueue, see `unpack_step`
--   r<i>  result, JSON; "!<size> <limit>" (which is no JSON) instead of a result that was too large to store
--   e<i>  text of the failure
--   z<i>  end of the node (Unix ms)
--   l<i>  `traceparent` of the run that enqueued the node, if the node has another queue
--   i<i>  description of the node in a failure: members of a JSON object, without the braces
--   v<i>  number of manual retries of the step, or of a group's member as v<i>.<member>
--   n:<name>  number of the group with this name
-- and for a group also gt<i> members, gd<i> members done, gf<i> members failed, go<i> '1' while it accepts members.
-- A group also has these keys: hashes by member number W:h<i> (packed tasks to enqueue), W:g<i> (results) and W:f<i>
-- (failures); hash W:x<i> of the members that a member added: number by task id, and task id by 'n<number>'; bitmap W:d<i>
-- of the members that have ended.
--
-- The set W:q contains the queues, other than the home queue, that received steps. The outbox wf-out of the home queue
-- contains work for its dispatcher: "s <id> <node>" to send a step to its queue, "r <id> <i>.<member>" to start further
-- members of a group. The hash wf-notes of another queue contains the outcomes of steps that ran in it.
--
-- A workflow of sub-tasks has the field parent: the name of the call, and the id of the task in the home queue.
--
-- The field taskq_step of a task marks it as a step: "<i> <t|k> <task id> <W>", with "<i>.<member>" for a member of a
-- group; t: the task is deleted after success, k: the task is kept.

-- workflows: return an object with the functions for workflows. A script creates this object when it meets the first
-- workflow step. `own` is the prefix of the queue's taskq-only keys.
local function workflows(own, now)
  local steps, out, notes = own .. 'wf-steps', own .. 'wf-out', own .. 'wf-notes'
  local flow = {}
  -- A stored workflow also contains a key prefix. Scripts ignore this prefix, because it may be forged and name another
  -- queue.
  local base, tag = string.match(own, '^([^{]*taskq:)({.*}:)$')
  local home, prefix = string.sub(tag, 2, -3), (base == 'taskq:' and 'asynq:' or string.sub(base, 1, -7)) .. tag
  flow.prefix = prefix
  local W, kept_s -- key and retention of the current workflow
  local TAKEN = 'another task has the id of this step'
  local NO_RUN = '00-' .. string.rep('0', 32) .. '-' .. string.rep('0', 16) .. '-00'

  -- step_of: return the node, the flag and the key of the workflow from the field taskq_step of a task. Return nothing
  -- if the field does not have the form that `enqueue` writes. The home queue may be any queue of this deployment.
  local function step_of(step)
    local node, flag, key = string.match(step, '^(%d+%.?%d*) ([tk]) %S+ (.+)$')
    if node and string.sub(key, 1, #base) == base and string.match(key, '^{.+}:wf:[^:%s]+$', #base + 1) then
      return node, flag, key
    end
  end

  local function get(field)
    return redis.call('HGET', W, field)
  end

  local function add(field, n)
    return redis.call('HINCRBY', W, field, n)
  end

  -- open: make a workflow the current workflow. Return false if this workflow was deleted.
  function flow.open(key)
    W = key
    local facts = redis.pcall('HMGET', W, 'queue', 'kept_s')
    if facts.err and not string.find(tostring(facts.err), 'WRONGTYPE', 1, true) then
      redis.call('HMGET', W, 'queue') -- raises Redis's error, for example if the user may not read the key
    end
    kept_s = tonumber(facts[2] or '')
    return facts[1] == home and kept_s ~= nil
  end

  local function id_of()
    return string.sub(W, #own + 4)
  end

  local function quoted(text)
    return '"'
      .. (string.gsub(text, '[%c"\\]', function(char)
        return string.format('\\u%04x', string.byte(char))
      end))
      .. '"'
  end

  -- oversized: return the size and the limit of a result that was too large to store, as text. Return nil for any other
  -- result.
  local function oversized(result)
    local size, limit = string.match(result, '^!(%d+) (%d+)$')
    return size and size .. ' bytes, and the limit is ' .. limit
  end

  local function missing(what)
    return nil, 'a result that it takes was not stored: ' .. what
  end

  -- results_of: append the results of a group to `parts` as a JSON list, in the order of the members. Return the size
  -- of the list. If a result is missing, return nil and a reason.
  local function results_of(i, parts)
    local total = tonumber(get('gt' .. i)) or 0
    local size = 2
    for first = 0, total - 1, 200 do
      local fields = {}
      for k = first, math.min(first + 199, total - 1) do
        fields[#fields + 1] = k
      end
      for at, result in ipairs(redis.call('HMGET', W .. ':g' .. i, unpack(fields))) do
        local too_large = result and oversized(result)
        if too_large then
          return missing(too_large)
        end
        parts[#parts + 1] = (first + at == 1 and '[' or ',') .. (result or 'null')
        size = size + #parts[#parts]
      end
    end
    parts[#parts + 1] = total == 0 and '[]' or ']'
    return size
  end

  -- failure_of: return the failure of the first failed node among `nodes`, as a JSON object.
  local function failure_of(nodes)
    for i in string.gmatch(nodes, '%d+') do
      if get('s' .. i) == 'f' then
        local inside = get('i' .. i)
        return '{"workflow":' .. quoted(id_of()) .. ',' .. (inside and inside .. ',' or '') .. '"error":'
          .. quoted(get('e' .. i) or '') .. '}'
      end
    end
    return 'null'
  end

  -- linked: return the part of a message after the payload, with `flow.run` in place of the empty `traceparent`. So the
  -- span of the step links to the run that enqueues the step. `flow.run` is nil if this run is not traced.
  local function linked(tail)
    local at = flow.run and string.find(tail, NO_RUN, 1, true)
    return at and string.sub(tail, 1, at - 1) .. flow.run .. string.sub(tail, at + #NO_RUN) or tail
  end

  -- assemble: return a message made from its pieces, each "<kind><length>:<bytes>". Kinds: H the part before the payload,
  -- T the part after it, L a literal part of the payload, R the result of a node, G the results of a group, E the first
  -- failure among nodes. Return nil and a reason if the payload would be too large or a result is missing.
  local function assemble(pieces)
    local head, tail, parts, size, at = '', '', {}, 0, 1
    while at <= #pieces do
      local _, colon, kind, length = string.find(pieces, '^(%a)(%d+):', at)
      local value = string.sub(pieces, colon + 1, colon + length)
      at = colon + length + 1
      if kind == 'H' then
        head = value
      elseif kind == 'T' then
        tail = linked(value)
      elseif kind == 'G' then
        local taken, problem = results_of(value, parts)
        if not taken then
          return nil, problem
        end
        size = size + taken
      else
        if kind == 'R' then
          value = get('r' .. value) or 'null'
          local too_large = oversized(value)
          if too_large then
            return missing(too_large)
          end
        elseif kind == 'E' then
          value = failure_of(value)
        end
        parts[#parts + 1] = value
        size = size + #value
      end
      if size > 4194304 then
        return nil, 'the results of its predecessors take more than 4194304 bytes, the most that is handed on'
      end
    end
    local payload = table.concat(parts)
    if payload == '' then
      return head .. tail
    end
    return head .. '\18' .. varint(#payload) .. payload .. tail
  end

  -- unpack_step: split a packed task, which is the field `m<i>` or a member of a group. Its form is
  -- "<task id> <t|k> <start as in `store`, - for now> <queue>\n<pieces for `assemble`>".
  local function unpack_step(packed)
    local stop = string.find(packed, '\n', 1, true)
    local id, flag, start, queue = string.match(string.sub(packed, 1, stop - 1), '^(%S+) (%a) (%S+) (.+)$')
    return id, flag, string.sub(start, 1, 1) == '-' and string.sub(start, 2) or start, queue, string.sub(packed, stop + 1)
  end

  local function make_pending(task_prefix_, id, band)
    join(task_prefix_ .. 'pending', own .. 'wake', task_prefix_ .. 't:', now.ms, id, band)
    wake(own .. 'wake')
  end

  local stored = {} -- number of the steps that this script has stored, by name of the task

  -- name_of: return the name of the task in a message, '' if the message does not begin with a name.
  local function name_of(message)
    local tag, low, high = string.byte(message, 1, 3)
    if tag ~= 10 or not high then
      return ''
    elseif low < 128 then
      return string.sub(message, 3, 2 + low)
    end
    return string.sub(message, 4, 3 + low - 128 + 128 * high)
  end

  -- with_steps: return a reply of a script, together with the number of the steps that the script has stored. The client
  -- counts these steps as enqueued.
  function flow.with_steps(reply)
    local counted = { '\0steps', reply, home }
    for name, count in pairs(stored) do
      counted[#counted + 1] = name
      counted[#counted + 1] = count
    end
    return #counted > 3 and counted or reply
  end

  -- put: store the task of a step in this queue. Return false if a task with this id exists that is not the step's.
  function flow.put(task_prefix_, id, step, message, start)
    local keys = { prefix = task_prefix_, scheduled = task_prefix_ .. 'scheduled' }
    -- no limits here, because `dequeue` applies the limits of the task
    local code, is_ready, band = store(keys, now, id, message, start, '', 0, '', '', false)
    if code == '1' then
      local name = name_of(message)
      stored[name] = (stored[name] or 0) + 1
      redis.call('HSET', task_prefix_ .. 't:' .. id, 'taskq_step', step)
      redis.call('ZADD', steps, whole(now.s), step)
      if is_ready then
        make_pending(task_prefix_, id, band)
      end
    elseif redis.pcall('HGET', task_prefix_ .. 't:' .. id, 'taskq_step') ~= step then
      return false
    end
    return true
  end

  -- enqueue: enqueue a step. Return the new state of the step, and a reason if this state is 'f' (failed).
  local function enqueue(node, packed)
    local id, flag, start, queue, pieces = unpack_step(packed)
    if queue ~= home then
      redis.call('SADD', W .. ':q', queue)
      redis.call('SADD', own .. 'wf-queues', queue)
      redis.call('ZADD', out, now.ms, 's ' .. id_of() .. ' ' .. node)
      if flow.run then
        redis.call('HSET', W, 'l' .. node, flow.run)
      end
      flow.has_ends_to_send = true
      return 'h'
    end
    local message, problem = assemble(pieces)
    if not message then
      return 'f', problem
    end
    if not flow.put(prefix, id, node .. ' ' .. flag .. ' ' .. id .. ' ' .. W, message, start) then
      return 'f', TAKEN
    end
    return 'p'
  end

  -- message_of: return the task of a step for another queue: task id, field taskq_step, message, start, queue.
  function flow.message_of(node)
    local i, k = string.match(node, '^(%d+)%.?(%d*)$')
    local state = get('s' .. i)
    if k == '' and state ~= 'h' or k ~= '' and state ~= 'p' or get('state') == 'cancelled' then
      return nil
    end
    local packed = k == '' and get('m' .. i) or k ~= '' and redis.call('HGET', W .. ':h' .. i, k)
    if not packed then
      return nil
    end
    local id, flag, start, queue, pieces = unpack_step(packed)
    flow.run = get('l' .. node) or nil
    local message, problem = assemble(pieces)
    local receipt = id .. ' ' .. (get('v' .. node) or '0')
    return id, node .. ' ' .. flag .. ' ' .. id .. ' ' .. W, message, start, queue, problem, receipt
  end

  local finish, member_ended

  -- release_members: enqueue at most 200 members of a group. The dispatcher enqueues the others.
  function flow.release_members(i, first)
    local total = tonumber(get('gt' .. i)) or 0
    local last = math.min(first + 199, total - 1)
    if last < total - 1 then
      redis.call('ZADD', out, now.ms, 'r ' .. id_of() .. ' ' .. i .. '.' .. whole(last + 1))
      flow.has_ends_to_send = true
    end
    for k = first, last do
      local packed = redis.call('HGET', W .. ':h' .. i, k)
      if packed then
        local state, problem = enqueue(i .. '.' .. whole(k), packed)
        if state == 'f' then
          member_ended(i, k, 'f', nil, problem)
        elseif state == 'p' then
          redis.call('HDEL', W .. ':h' .. i, k) -- keep members for another queue: dispatcher and retries need them
        end
      end
    end
    return last + 1
  end

  -- group_ended: return 'd' if a group is done, 'f' if it failed, nil while it runs.
  local function group_ended(i)
    local counts = redis.call('HMGET', W, 'gt' .. i, 'gd' .. i, 'gf' .. i, 'go' .. i)
    local total, done, failed = tonumber(counts[1]) or 0, tonumber(counts[2]) or 0, tonumber(counts[3]) or 0
    if counts[4] == '1' or done + failed < total then
      return nil
    end
    return failed > 0 and 'f' or 'd'
  end

  -- start: start a node whose parents have ended. Return the new state of the node. If this state is final, the caller
  -- has to finish the node.
  local function start(i)
    if get('gt' .. i) then
      redis.call('HSET', W, 's' .. i, 'p')
      local ended = group_ended(i)
      if not ended then
        flow.release_members(i, 0)
      end
      return ended or 'p'
    end
    local state, problem = enqueue(i, get('m' .. i))
    redis.call('HSET', W, 's' .. i, state)
    if problem then
      redis.call('HSET', W, 'e' .. i, problem)
    end
    return state
  end

  local function conclude()
    local facts = redis.call('HMGET', W, 'open', 'state', 'bad', 'taskq_wait')
    if tonumber(facts[1]) > 0 or facts[2] ~= 'running' then
      return
    end
    local state = tonumber(facts[3] or 0) > 0 and 'failed' or 'succeeded'
    redis.call('HSET', W, 'state', state, 'ended', whole(now.ms))
    flow.over(facts[4])
  end

  -- parent_of: find the task that waits for the current workflow. Return the key of its steps record, its id, and the
  -- name of its wait. Return nothing if the task was deleted, even if a later task has the same id.
  local function parent_of()
    local name, task = string.match(get('parent') or '', '^([^\n]*)\n(.*)$')
    local begun = task and redis.pcall('HGET', own .. 'steps:' .. task, 'c:' .. name)
    if type(begun) == 'string' and string.match(begun, ' (.*)$') == id_of() then
      return own .. 'steps:' .. task, task, name
    end
  end

  -- over: record that the current workflow has ended, and notify the clients and the task that wait for this workflow.
  function flow.over(waited)
    redis.call('ZREM', own .. 'wf-running', id_of())
    redis.call('ZADD', own .. 'wf-ended', whole(now.s + kept_s), id_of())
    if waited then
      redis.call('PUBLISH', own .. 'done', id_of())
    end
    local record, task, name = parent_of()
    if record then
      redis.call('HSET', record, 'e:' .. name, event_ms(record, now.ms))
      resume(prefix, own, now.ns, now.ms, task, 'c:' .. name)
    end
  end

  -- finish: record the end of a node. Start the child nodes that waited for this node, and skip child nodes that must
  -- not run.
  function finish(first, first_state)
    local todo, at = { { first, first_state } }, 1
    local is_cancelled = get('state') == 'cancelled'
    while todo[at] do
      local i, state = todo[at][1], todo[at][2]
      todo[at] = false
      at = at + 1
      redis.call('HSET', W, 's' .. i, state, 'z' .. i, whole(now.ms))
      add('open', -1)
      if state == 'f' and not get('t' .. i) then
        add('bad', 1)
      end
      for j, edge in string.gmatch(get('c' .. i) or '', '(%d+)(%a)') do
        if get('s' .. j) == 'w' then
          if edge == 's' and state ~= 'd' then
            add('b' .. j, 1)
          elseif edge == 'f' and state == 'f' then
            add('y' .. j, 1)
          end
          if add('p' .. j, -1) == 0 then
            local facts = redis.call('HMGET', W, 'b' .. j, 'q' .. j, 'y' .. j)
            local next_state
            if is_cancelled then
              next_state = 'c'
            elseif tonumber(facts[1] or 0) > 0 or facts[2] == '1' and tonumber(facts[3] or 0) == 0 then
              next_state = 'x'
            else
              next_state = start(j)
            end
            if next_state ~= 'p' and next_state ~= 'h' then
              todo[#todo + 1] = { j, next_state }
            end
          end
        end
      end
    end
    conclude()
  end

  -- reopen: after a failed node runs again or has succeeded, make the nodes wait again that were skipped because of its
  -- failure.
  local function reopen(first)
    local todo, at = { first }, 1
    if not get('t' .. first) then
      add('bad', -1)
    end
    redis.call('HSET', W, 's' .. first, 'p')
    while todo[at] do
      local i = todo[at]
      local state = at == 1 and 'f' or 'x'
      at = at + 1
      add('open', 1)
      for j, edge in string.gmatch(get('c' .. i) or '', '(%d+)(%a)') do
        local its_state = get('s' .. j)
        if its_state == 'x' or its_state == 'w' then
          add('p' .. j, 1)
          if edge == 's' then
            add('b' .. j, -1)
          elseif edge == 'f' and state == 'f' then
            add('y' .. j, -1)
          end
          if its_state == 'x' then
            redis.call('HSET', W, 's' .. j, 'w') -- at once, because node j may have several reopened parents
            todo[#todo + 1] = j
          end
        end
      end
    end
    if get('state') ~= 'running' and get('state') ~= 'cancelled' then
      local record, _, name = parent_of()
      if record then
        redis.call('HDEL', record, 'e:' .. name)
      end
      redis.call('HSET', W, 'state', 'running')
      redis.call('HDEL', W, 'ended')
      redis.call('ZREM', own .. 'wf-ended', id_of())
      redis.call('ZADD', own .. 'wf-running', whole(now.s), id_of())
    end
  end

  function member_ended(i, k, state, result, problem)
    local ended = W .. ':d' .. i
    if redis.call('SETBIT', ended, k, 1) == 1 then
      if state ~= 'd' or redis.call('HDEL', W .. ':f' .. i, k) == 0 then
        return -- this end was recorded before
      end
      add('gf' .. i, -1)
    end
    if state == 'd' then
      add('gd' .. i, 1)
      if result then
        redis.call('HSET', W .. ':g' .. i, k, result)
      end
    else
      add('gf' .. i, 1)
      redis.call('HSET', W .. ':f' .. i, k, string.sub(problem or '', 1, 200))
      if not get('e' .. i) then
        redis.call('HSET', W, 'e' .. i, 'member ' .. whole(k) .. ': ' .. (problem or ''))
      end
    end
  end

  -- ended: record the end of a step of the current workflow. `state` is 'd' (done) or 'f' (failed), `result` the result
  -- of a done step, and `problem` the error text of a failed step.
  function flow.ended(node, state, result, problem)
    local i, k = string.match(node, '^(%d+)%.?(%d*)$')
    local current = i and get('s' .. i)
    if not current or get('state') == 'cancelled' then
      return
    end
    if k ~= '' then
      member_ended(i, tonumber(k), state, result, problem)
      local is_over = group_ended(i)
      if is_over == 'd' then
        redis.call('HDEL', W, 'e' .. i)
      end
      if is_over and current == 'p' then
        finish(i, is_over)
      elseif is_over == 'd' and current == 'f' then
        reopen(i)
        finish(i, 'd')
      end
      return
    end
    if current == 'f' and state == 'd' then
      reopen(i)
    elseif current ~= 'p' and current ~= 'h' then
      return
    end
    if state == 'd' then
      redis.call('HDEL', W, 'e' .. i)
      local too_large = result and oversized(result)
      if too_large then
        redis.call('HSET', W, 'e' .. i, 'its result was not stored: ' .. too_large)
      end
      if result then
        redis.call('HSET', W, 'r' .. i, result)
      end
    else
      redis.call('HSET', W, 'e' .. i, problem or '')
    end
    finish(i, state)
  end

  -- release: start further members of a started group.
  function flow.release(i, first)
    if get('s' .. i) ~= 'p' or get('state') == 'cancelled' then
      return
    end
    flow.release_members(i, first)
    local is_over = group_ended(i)
    if is_over then
      finish(i, is_over)
    end
  end

  -- add_member: enqueue a new member of a started group.
  function flow.add_member(i, k, packed)
    local state, problem = enqueue(i .. '.' .. whole(k), packed)
    if state == 'h' then
      redis.call('HSET', W .. ':h' .. i, k, packed)
    elseif state == 'f' then
      member_ended(i, k, 'f', nil, problem)
    end
  end

  -- grow: add members to a group at the request of one of its members; see `grow_group`.
  function flow.grow(i, name, by, packed, first)
    local known = W .. ':x' .. i
    local number = tonumber(redis.call('HGET', known, by) or string.match(by, '%.(%d+)$'))
    local is_member = number and (redis.call('HEXISTS', known, by) == 1 or by == id_of() .. '.' .. name .. '.' .. whole(number))
    if not is_member or number >= (tonumber(get('gt' .. i)) or 0) or get('s' .. i) ~= 'p' or get('state') ~= 'running' then
      return false
    elseif redis.call('GETBIT', W .. ':d' .. i, number) == 1 then
      return false
    end
    local added = 0
    for at = first, #packed do
      local id = unpack_step(packed[at])
      if redis.call('HEXISTS', known, id) == 0 then
        local k = add('gt' .. i, 1) - 1
        redis.call('HSET', known, id, k, 'n' .. whole(k), id)
        flow.add_member(i, k, packed[at])
        added = added + 1
      end
    end
    return added
  end

  -- close: make a group accept no more members. If `problem` is not empty, members are missing, and the group fails.
  function flow.close(i, problem)
    if get('go' .. i) ~= '1' then
      return false
    end
    redis.call('HDEL', W, 'go' .. i)
    if problem ~= '' then
      member_ended(i, add('gt' .. i, 1) - 1, 'f', nil, problem)
    end
    local is_over = group_ended(i)
    if is_over and get('s' .. i) == 'p' then
      finish(i, is_over)
    end
    return true
  end

  -- cancel: cancel the current workflow, so that no further step of the workflow starts. Return false if the workflow
  -- has ended.
  function flow.cancel()
    if get('state') ~= 'running' then
      return false
    end
    redis.call('HSET', W, 'state', 'cancelled', 'ended', whole(now.ms))
    redis.call('ZREM', own .. 'wf-open', id_of())
    flow.over(get('taskq_wait'))
    return true
  end

  -- revive: run an archived task of a step again, in this queue. If the task runs or has succeeded already, because
  -- another program has run it again, only list the step again, so that its workflow learns of its end. Return false if
  -- no task with this id belongs to the step.
  function flow.revive(task_prefix_, id, step)
    local key = task_prefix_ .. 't:' .. id
    local fields = redis.call('HMGET', key, 'state', 'taskq_priority', 'taskq_step', 'taskq_copied', 'msg')
    if fields[3] ~= step or is_copied(fields[1], fields[5], fields[4]) then
      return false
    end
    redis.call('ZADD', steps, whole(now.s), step)
    if fields[1] == 'archived' and redis.call('ZREM', task_prefix_ .. 'archived', id) == 1 then
      redis.call('HSET', key, 'state', 'pending')
      redis.call('HDEL', key, 'pending_since')
      make_pending(task_prefix_, id, band_of(fields[2], false))
    end
    return true
  end

  -- retry: run a failed step of the current workflow again. Return false if the step has not failed.
  function flow.retry(i)
    if get('s' .. i) ~= 'f' or get('gt' .. i) then
      return false
    end
    local packed = get('m' .. i)
    local id, flag, _, queue = unpack_step(packed)
    reopen(i)
    redis.call('HDEL', W, 'e' .. i)
    add('v' .. i, 1)
    if queue == home and flow.revive(prefix, id, i .. ' ' .. flag .. ' ' .. id .. ' ' .. W) then
      return true
    end
    local state, problem = enqueue(i, packed)
    redis.call('HSET', W, 's' .. i, state)
    if state == 'f' then
      redis.call('HSET', W, 'e' .. i, problem)
      finish(i, state)
    end
    return true
  end

  -- retry_members: run one page of the failed members of a group again. Return the next cursor ('0' at the end), and
  -- the number of members that run again.
  function flow.retry_members(i, cursor, name)
    local page = redis.call('HSCAN', W .. ':f' .. i, cursor, 'COUNT', 100)
    local count = 0
    for at = 1, #page[2], 2 do
      local k = page[2][at]
      local node = i .. '.' .. k
      local id = redis.call('HGET', W .. ':x' .. i, 'n' .. k) or id_of() .. '.' .. name .. '.' .. k
      local packed = redis.call('HGET', W .. ':h' .. i, k) -- the packed task exists if the member has another queue
      local step = redis.call('HGET', prefix .. 't:' .. id, 'taskq_step')
      if packed or step and flow.revive(prefix, id, step) then
        if get('s' .. i) == 'f' then
          reopen(i)
          redis.call('HDEL', W, 'e' .. i)
        end
        redis.call('HDEL', W .. ':f' .. i, k)
        redis.call('SETBIT', W .. ':d' .. i, k, 0)
        add('gf' .. i, -1)
        count = count + 1
        if packed then
          add('v' .. node, 1)
          redis.call('ZADD', out, now.ms, 's ' .. id_of() .. ' ' .. node)
          flow.has_ends_to_send = true
        end
      end
    end
    return page[1], count
  end

  -- begin: start the nodes that have no parents.
  function flow.begin(roots)
    for i in string.gmatch(roots, '%d+') do
      local state = start(i)
      if state ~= 'p' and state ~= 'h' then
        finish(i, state)
      end
    end
    conclude()
  end

  -- refuse: report to the workflow that a step cannot be stored here, unless another outcome of the step waits.
  function flow.refuse(step)
    local node, _, of = step_of(step)
    if node then
      redis.call('HSETNX', notes, node .. ' ' .. of, 'f=' .. TAKEN)
    end
  end

  -- settled: report to the workflow that the task of a step has ended in this queue. `outcome` is 'c' (completed), 'd'
  -- (dropped), 'a' (archived) or 'g' (deleted). `result` is the result of the task, or '' to read the result from the
  -- task's hash. `size_and_limit` is given if the result was too large to store. Return the outcome with which the
  -- script settles the task.
  function flow.settled(step, outcome, key, message, result, size_and_limit)
    local node, flag, of = step_of(step)
    if not node then
      redis.call('ZREM', steps, step)
      return outcome
    end
    local state, problem = 'd', nil
    if outcome == 'c' then
      if result == '' then
        local kept = redis.call('HMGET', key, 'result', 'taskq_oversized') -- size and limit of a too large result
        size_and_limit = size_and_limit or kept[1] == '' and kept[2]
        result = size_and_limit and '!' .. size_and_limit or kept[1] ~= '' and kept[1]
      end
      redis.call('HDEL', key, 'taskq_step') -- if a user runs the task again, the workflow ignores this run
    else
      state, result = 'f', nil
      problem = outcome == 'd' and 'the task was dropped' or outcome == 'g' and 'the task was deleted' or text_of(message, 7)
      if problem == '' then
        problem = 'the task was archived by hand' -- inspectors archive tasks without an error text
      end
      if outcome == 'a' then
        redis.pcall('ZADD', own .. 'wf-failed', whole(now.s), step) -- Go's tools may run the task again
      end
    end
    redis.call('ZREM', steps, step)
    -- this pattern matches the name, the protobuf tag, the length and the value of the header `taskq-run`
    local run = message and string.match(message, 'taskq%-run\18\55(00%-%x+%-%x+%-%x%x)')
    if string.sub(of, 1, #own + 3) ~= own .. 'wf:' then
      redis.call('HSET', notes, node .. ' ' .. of, state .. (problem or result and '=' .. result or ''))
      if run then
        redis.call('HSET', notes, 'run ' .. node .. ' ' .. of, run) -- workers of older releases ignore this field
      end
      flow.has_ends_to_send = true
    elseif flow.open(of) then
      flow.run = run
      flow.ended(node, state, result, problem)
      flow.run = nil
    end
    return outcome == 'c' and flag == 't' and 'd' or outcome
  end

  return flow
end
