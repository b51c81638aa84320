--[[
  recover: take tasks back from workers that no longer extend their leases.

  KEYS[1]  list    active tasks
  KEYS[2]  zset    leases: id by expiry (Unix s)
  KEYS[3]  zset    retry: id by next attempt (Unix s)
  KEYS[4]  zset    archived: id by archiving time (Unix s)
  KEYS[5]  zset    quarantine: id by time (Unix s)
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     grace period after the expiry of a lease (s)
  ARGV[3]  string  prefix of the queue's keys
  ARGV[4]  string  channel for the ids of ended tasks
  ARGV[5]  int     seconds a daily counter is kept
  ARGV[6]  int     seconds for which an archived task is kept
  ARGV[7]  int     maximum number of archived tasks
  ARGV[8]  string  prefix of quarantined hashes
  ARGV[9]  string  token of a dead worker, to take only its tasks, even before their leases expire; '' to take tasks of
                   any worker whose leases have expired
  ARGV[10] int     largest message to read, see `_message`
  ARGV[11..]       per task: verdict, id, lease expiry as listed, message listed, message to store, ms until the next
                   attempt, record of the attempt ('' none)
                   verdict  r retry after a counted failure   n retry without counting one   a archive
                            b archive, and add it to the dead letters for a handler
                            z quarantine: unreadable          x drop: no hash

  The script reads the lease, the message and the fence of each task again, because they may have changed since the
  caller listed the task. A task is not changed if its lease was extended, or if the task was settled or taken in the
  meantime. The first write is a DEL or an LREM: after such a command, even a full Redis allows the later writes of this
  script.

  returns  one character per task:  1  moved   0  not changed   2  not checked, send it again (the search in a long active
           list is limited: tasks x length <= 2 000 000)
]]
-- include _check
-- include _clock
-- include _fence
-- include _message
-- include _date
-- include _count
local unique_prefix = ARGV[3] .. 'unique:'
-- include _unique
-- include _forget_steps
-- include _trim
-- include _leave_active
-- include _record
-- include _lock
-- include _marks
-- include _place
-- include _limits
-- include _store
-- include _wake
-- include _steps
-- include _resume
-- include _copied
-- include _flow
local now_s, now_ns, now_ms = clock(ARGV[1])
local keys = { active = KEYS[1], lease = KEYS[2], done = ARGV[4] }
local length = redis.call('LLEN', KEYS[1]) -- this and the next calls raise an error if a key has another type
check('ZCARD', KEYS[3], KEYS[4], KEYS[5])
local cutoff = now_s - tonumber(ARGV[2])
local task_prefix = ARGV[3] .. 't:'
local flow -- this object is created for the first task that is a workflow step
local budget = math.max(1, math.floor(2000000 / math.max(1, length)))
local codes, failed, archived = {}, 0, 0
local limits = limiter(ARGV[3], now_s, now_ns, now_ms)
-- which permit of a sequence the task keeps, by verdict; see `release_permits` in `_limits`
local kept_permit = { r = 'retry', n = 'retry', a = 'archive' }
local gone = ARGV[9]
for i = 11, math.min(#ARGV, 10 + 7 * budget), 7 do
  local verdict, id = ARGV[i], ARGV[i + 1]
  local is_told = verdict == 'b'
  verdict = is_told and 'a' or verdict
  local key = task_prefix .. id
  local score = redis.call('ZSCORE', KEYS[2], id)
  local fields = redis.pcall(
    'HMGET', key, 'taskq_wait', 'taskq_step', 'taskq_permit', 'unique_key', 'taskq_unique', 'taskq_owner', 'taskq_steps'
  )
  local stored = message_of(key, tonumber(ARGV[10]))
  local message = stored or ''
  local code = '0'
  local is_lost = score and tonumber(score) <= cutoff
  if gone ~= '' then
    is_lost = score and worker_of(fields[6], score) == gone
  end
  if is_lost and score == ARGV[i + 2] and message == ARGV[i + 3] then
    code = '1'
    leave(keys, id)
    if fields[3] then
      limits.release_permits(id, key, kept_permit[verdict])
    end
    if verdict == 'r' or verdict == 'n' then
      keep(KEYS[3], whole(due(now_ms, tonumber(ARGV[i + 5]))), id, key, ARGV[i + 4], 'retry', record(key, ARGV[i + 6]))
      follow(fields[5], fields[4], id, 'retry')
      failed = failed + (verdict == 'r' and 1 or 0)
      announce_change(keys, fields[1], id)
    elseif verdict == 'a' then
      if fields[7] then
        keep_steps(ARGV[3], id, ARGV[6])
      end
      if is_told then
        redis.call('ZADD', string.gsub(KEYS[5], 'quarantine$', 'letters'), whole(now_s), id)
      end
      keep(KEYS[4], whole(now_s), id, key, ARGV[i + 4], 'archived', record(key, ARGV[i + 6]))
      follow(fields[5], fields[4], id, 'archived')
      failed = failed + 1
      archived = archived + 1
      announce(keys, fields[1], id)
      if fields[2] then
        flow = flow or workflows(string.sub(KEYS[5], 1, -11), { s = now_s, ns = now_ns, ms = now_ms })
        flow.settled(fields[2], 'a', key, ARGV[i + 4], '')
      end
    elseif verdict == 'z' and message ~= '' then
      redis.call('RENAME', key, ARGV[8] .. id)
      redis.call('HDEL', ARGV[8] .. id, 'taskq_owner', 'taskq_started')
      redis.call('ZADD', KEYS[5], whole(now_s), id)
      release(fields[4], id)
      announce(keys, fields[1], id)
    elseif stored ~= nil then -- nil: a key of another type, which taskq did not write and does not delete
      redis.call('DEL', key) -- delete a hash without a message, because it prevents new tasks with this id
      release(fields[4], id)
    end
  end
  codes[#codes + 1] = code
end
limits.finish()
if archived > 0 then
  trim(KEYS[4], task_prefix, now_s - tonumber(ARGV[6]), tonumber(ARGV[7]))
end
count(ARGV[3], 'processed', failed, now_s, tonumber(ARGV[5]))
count(ARGV[3], 'failed', failed, now_s, tonumber(ARGV[5]))
local reply = table.concat(codes) .. string.rep('2', (#ARGV - 10) / 7 - #codes)
return flow and flow.with_steps(reply) or reply
