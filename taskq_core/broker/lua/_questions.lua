-- The open questions of a queue: a sorted set `<own>questions` of "<name>#<k>\n<task id>" by the time of the question
-- (Unix ms). A member stays when its task fails or is deleted. `ask` removes the members of deleted tasks by and by. Needs
-- the file `_clock`.

-- question: return the member for the k-th question with a name, where `name` is "<name>#<k>".
local function question(id, name)
  return name .. '\n' .. id
end

-- read_question: return the question of a member, the end of its wait (both as in the record, see `_steps`), and the mark
-- of the record. Return nil if the question was answered, its task was cancelled, or it is gone with its task.
local function read_question(task_key, record, name)
  local mark = redis.pcall('HGET', task_key, 'taskq_steps')
  local found = redis.pcall('HMGET', record, 'of', 'q:' .. name, 'v:' .. name, 'u:v:' .. name, 'cancel')
  if type(mark) == 'string' and found[1] == mark and not found[3] and not found[5] and found[2] then
    return found[2], found[4] or '-', mark
  end
end

-- ask: give a question the next number of the task, and list it. Return the value of its field. Also look
-- at two other members, and remove those of deleted tasks, so that they do not become many.
local function ask(task_key, record, questions, id, name, asked)
  local tasks, records = string.sub(task_key, 1, -#id - 1), string.sub(record, 1, -#id - 1)
  local since, size = string.match(asked, '^%d+'), redis.call('ZCARD', questions)
  local any = size > 0 and tonumber(since) % size or 0
  for _, member in ipairs(redis.call('ZRANGE', questions, any, any + 1)) do
    local other_name, other = string.match(member, '^([^\n]*)\n(.*)$')
    if not read_question(tasks .. other, records .. other, other_name) then
      redis.call('ZREM', questions, member)
    end
  end
  redis.call('ZADD', questions, since, question(id, name))
  return whole(redis.call('HINCRBY', record, 'questions', 1)) .. ' ' .. asked
end
