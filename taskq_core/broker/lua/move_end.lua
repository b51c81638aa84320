--[[
  move_end: finish moves of tasks to another queue (step 3 of 3). Delete tasks that the other queue has stored, and put
  refused tasks back into this queue.

  KEYS[1]  list    pending tasks
  KEYS[2]  zset    scheduled
  KEYS[3]  zset    retry
  KEYS[4]  zset    archived
  KEYS[5]  zset    completed
  KEYS[6]  set     names of groups with members
  KEYS[7]  zset    tasks that are being moved: id by start of the move (Unix s)
  KEYS[8]  list    wake tokens
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  string  prefix of the queue's keys
  ARGV[3]  string  channel for the ids of ended tasks
  ARGV[4]  string  token of the move_out call that started or resumed the moves
  ARGV[5..]        per task: 'g' (delete it) or 'b' (put it back into its old structure, a pending task at the end of the
                   queue), followed by the name of its move; then its id

  A task is skipped if no move with this name is in progress, or if another caller has resumed the move.

  returns  number of finished moves
]]
-- include _check
-- include _clock
-- include _wake
-- include _leave_active
local unique_prefix = ARGV[2] .. 'unique:'
-- include _unique
-- include _lock
-- include _withdraw
local now_s = clock(ARGV[1])
local keys = structures(ARGV[2])
keys.done = ARGV[3]
check('LLEN', KEYS[1], KEYS[8])
check('ZCARD', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[7])
check('SCARD', KEYS[6])
local ended, ready = 0, false
for i = 5, #ARGV, 2 do
  local verdict, mark, id = string.sub(ARGV[i], 1, 1), string.sub(ARGV[i], 2) .. ':' .. ARGV[4] .. ':', ARGV[i + 1]
  local key = ARGV[2] .. 't:' .. id
  local fields = redis.pcall('HMGET', key, 'taskq_moving', 'state', 'group', 'unique_key', 'taskq_wait', 'msg', 'taskq_step', 'taskq_letter')
  if type(fields[1]) == 'string' and string.sub(fields[1], 1, #mark) == mark then
    ended = ended + 1
    redis.call('ZREM', KEYS[7], id)
    if verdict == 'g' then
      redis.call('DEL', key)
      release(fields[4] or lock_of(fields[6] or ''), id)
      announce(keys, fields[5], id)
      if fields[7] then
        -- remove the step from this queue's started steps, because the other queue now lists it
        redis.call('ZREM', string.sub(KEYS[8], 1, -5) .. 'wf-steps', fields[7])
      end
    else
      local score = string.match(fields[1], '^%x+:%x+:([^:]*):')
      score = tonumber(score) and score or whole(now_s)
      local members = fields[2] == 'aggregating' and fields[3] and ARGV[2] .. 'g:' .. fields[3]
      local set = members or fields[2] ~= 'pending' and keys[fields[2]]
      redis.call('HDEL', key, 'taskq_moving', 'taskq_letter')
      if fields[8] then
        redis.pcall('ZADD', string.sub(KEYS[8], 1, -5) .. 'letters', whole(now_s), id)
      end
      if set and type(redis.pcall('ZADD', set, score, id)) == 'number' then
        if members then
          redis.call('SADD', KEYS[6], fields[3])
        end
      else
        redis.call('LPUSH', KEYS[1], id)
        redis.call('HSET', key, 'state', 'pending')
        ready = true
      end
    end
  end
end
if ready then
  wake(KEYS[8])
end
return ended
