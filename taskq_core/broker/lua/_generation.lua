-- The generation of a task distinguishes the task from later tasks with the same id. It is stored in the field
-- `taskq_generation` of the task's hash, and disappears with the hash. A client that chooses the id of a task also
-- chooses a generation. Other tasks, such as those of Go programs, get one when a client asks for it first. The mark of a
-- steps record (`taskq_steps`) is a generation too, so a task with a record needs no other.
-- A request to one task contains the generation of the task that the caller has seen, so it cannot change a later task
-- with the same id, however late it arrives.

-- generation_of: return the generation of a task. If it has none, store one. Return '-', which no task has, if there
-- is no such task, and '' if Redis refuses the write.
local function generation_of(key)
  local fields = redis.pcall('HMGET', key, 'taskq_generation', 'taskq_steps', 'state')
  if fields.err or not fields[3] then
    return '-'
  elseif fields[1] or fields[2] then
    return fields[1] or fields[2]
  end
  local time = redis.call('TIME') -- not the clock of tests, which may stand still
  local generation = time[1] .. '.' .. time[2]
  return redis.pcall('HSET', key, 'taskq_generation', generation) == 1 and generation or ''
end

-- generations_in: return the generations in a text such as "1.2,,3.4,", in which a comma follows each generation.
local function generations_in(text)
  local generations = {}
  for generation in string.gmatch(text, '([^,]*),') do
    generations[#generations + 1] = generation
  end
  return generations
end

-- is_later: return whether a task is not the one that the caller of a request has seen. '' or nil stands for any
-- task.
local function is_later(key, generation)
  if not generation or generation == '' then
    return false
  end
  local fields = redis.pcall('HMGET', key, 'taskq_generation', 'taskq_steps')
  return fields[1] ~= generation and fields[2] ~= generation
end
