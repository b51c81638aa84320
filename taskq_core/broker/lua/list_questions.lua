--[[
  list_questions: list the open questions of a queue, the oldest first. Changes nothing.

  KEYS[1]  zset    open questions, see `_questions`
  ARGV[1]  string  prefix of task keys
  ARGV[2]  string  prefix of the keys of steps records
  ARGV[3]  int     maximum number of questions
  ARGV[4]  int     maximum total bytes of questions; at least one is listed

  Questions of ended tasks are not listed. Their members stay, because somebody may run the task again.

  returns  per question: id of the task, "<name>#<k>", as in q:<name>#<k>, end of the wait as in u:<wait>
           and mark of the record (see `_steps`)
]]
-- include _clock
-- include _questions
local reply, bytes, at = {}, 0, 0
repeat
  local members = redis.call('ZRANGE', KEYS[1], at, at + 99)
  for _, member in ipairs(members) do
    local name, id = string.match(member, '^([^\n]*)\n(.*)$')
    local asked, ends, mark = read_question(ARGV[1] .. id, ARGV[2] .. id, name)
    local state = asked and redis.call('HGET', ARGV[1] .. id, 'state')
    if state and state ~= 'archived' and state ~= 'completed' then
      reply[#reply + 1] = { id, name, asked, ends, mark }
      bytes = bytes + #asked
      if #reply == tonumber(ARGV[3]) or bytes >= tonumber(ARGV[4]) then
        return reply
      end
    end
  end
  at = at + #members
until #members < 100
return reply
