--[[
  tick: process firings of schedule entries. Store the task of each firing and advance the mark of its entry in one
  step. The mark of an entry is the last firing that a scheduler has handled.

  Each firing is passed with the previous firing of the same entry. A firing is processed only if the entry's mark is
  this previous firing. So a scheduler that continues with old data after its lease has ended neither repeats nor skips
  a firing.

  KEYS[1]  list    pending tasks of the queue
  KEYS[2]  zset    scheduled tasks: id by start (Unix s)
  KEYS[3]  list    wake tokens
  KEYS[4]  string  receipt of this caller's last call: "<call>:<codes>"
  KEYS[5]  set     names of groups with members
  KEYS[6]  hash    counts of runs, see take_runs; a key of another type is overwritten
  ARGV[1]  int     time used instead of Redis's clock in tests (Unix ns), empty in production
  ARGV[2]  int     number of this call; a repeat with the same number changes nothing and returns the codes again
  ARGV[3]  int     seconds until the receipt expires
  ARGV[4]  string  prefix of the queue's keys
  ARGV[5]  string  prefix of marks, see adopt
  ARGV[6]  int     seconds until a mark expires
  ARGV[7..]        per firing: entry, firing before it (Unix s), firing (Unix s), id, message ('' enqueues nothing),
                   start ('' now, '=<Unix s>', '+<ms from now>'), unique lock key ('' none), lock word (see
                   _store), group ('' none), limits ('' none), entry name under which the run is counted ('' to count
                   nothing)

  The caller sends at most 100 firings, about 1 MiB. Firings of one entry are in order.

  returns  now (Unix ns as text), and one character per firing:
             1  stored            0  processed: the id is taken     d  processed: another task holds the unique lock
             x  processed: another task holds the unique lock and was not changed
             u  processed: the task that holds the unique lock was changed instead
             -  processed: nothing to enqueue
             s  superseded: the mark is another firing
             e  too early: the firing is ahead of Redis's clock
]]
-- include _check
-- include _clock
-- include _marks
-- include _place
-- include _receipt
-- include _limits
-- include _held
-- include _store
-- include _wake
-- include _batch
local now_s, now_ns, now_ms = clock(ARGV[1])
local before = made_before(KEYS[4], ARGV[2])
if before then
  return type(before) == 'table' and before or { now_ns, before }
end
check('LLEN', KEYS[1], KEYS[3])
check('ZCARD', KEYS[2])
check('SCARD', KEYS[5])
local keys = { prefix = ARGV[4], scheduled = KEYS[2], groups = KEYS[5] }
local now = { s = now_s, ns = now_ns, ms = now_ms }
local marks = {}
for i = 7, #ARGV, 11 do
  if not marks[ARGV[i]] then
    local mark = redis.pcall('GET', ARGV[5] .. ARGV[i]) -- a key of another type counts as a missing mark
    local at, enqueued = string.match(type(mark) == 'string' and mark or '', '^(%d+):(%d*)$')
    marks[ARGV[i]] = { at = at, enqueued = enqueued }
  end
  if ARGV[i + 8] ~= '' then
    redis.call('ZCARD', ARGV[4] .. 'g:' .. ARGV[i + 8])
  end
  if string.find(ARGV[i + 5], 'p%d:%d;') then
    -- raises an error, before the first write, if the Redis user may not read the list
    redis.call('LINDEX', KEYS[1], -1)
  end
end

local codes, ready, ran = {}, new_batch(), {}
for i = 7, #ARGV, 11 do
  local mark, firing, id = marks[ARGV[i]], ARGV[i + 2], ARGV[i + 3]
  local code, is_ready, band
  if mark.at ~= ARGV[i + 1] then
    code = 's'
  elseif tonumber(firing) > now_s then
    code = 'e'
  else
    if ARGV[i + 4] == '' then
      code = '-'
    else
      code, is_ready, band =
        store(keys, now, id, ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], ARGV[i + 8], ARGV[i + 9])
    end
    mark.at = firing
    if code == '1' then
      mark.enqueued = firing
      if ARGV[i + 10] ~= '' then
        ran[#ran + 1] = { name = ARGV[i + 10], at = firing }
      end
    end
    redis.call('SET', ARGV[5] .. ARGV[i], mark.at .. ':' .. mark.enqueued, 'EX', ARGV[6])
  end
  codes[#codes + 1] = code
  if is_ready then
    ready.add(id, band)
  end
end
ready.push(KEYS[1], KEYS[3], ARGV[4] .. 't:', now_ms, place_all)
if #ran > 0 then
  local kind = redis.call('TYPE', KEYS[6])
  if (kind.ok or kind) ~= 'hash' then
    redis.call('DEL', KEYS[6])
  end
  for _, each in ipairs(ran) do
    local count, last, told = string.match(redis.call('HGET', KEYS[6], each.name) or '', '^(%d+):(%d+):(%d+:%d+)$')
    if tonumber(last or 0) < tonumber(each.at) then
      last = each.at
    end
    redis.call('HSET', KEYS[6], each.name, whole(tonumber(count or 0) + 1) .. ':' .. last .. ':' .. (told or '0:0'))
  end
  redis.call('EXPIRE', KEYS[6], ARGV[6])
end
codes = table.concat(codes)
redis.call('SET', KEYS[4], ARGV[2] .. ':' .. codes, 'EX', ARGV[3])
return { now_ns, codes }
