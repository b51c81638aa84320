--[[
  tend: repair single keys of one cluster slot, each only if it still stands as it was found.

  KEYS[1]  a key that never exists; deleting it is a write
  KEYS[2..]        per repair: the key, and another one
  ARGV[1]  int     time that replaces Redis's (Unix ns), empty in production
  ARGV[2..] string per repair: what to do, and an argument:
             aside   type it has          renames it to the other key, if nothing stands there
             count   ''                   likewise, if it is a string that holds no number
             unlock  id of its holder     deletes it, if the other key, the holder, is not there or may not hold it
             expire  seconds              lets it expire, if it never would
             list    id                   adds the id with the present second (Unix s), if the other key is there
             unlist  id                   removes the id, if the other key is not there

  At most 50 repairs a call. DEL comes before any other write: Redis accepts it also over maxmemory, and with it those
  that follow.

  returns  per repair: 1 done, 0 not as it was found
]]
-- include _clock
-- include _number
-- include _unique
local now_s = clock(ARGV[1])
redis.call('DEL', KEYS[1])
local reply = {}
for i = 2, #ARGV, 2 do -- on a cluster one more key stands behind them
  local key, other, action, argument = KEYS[i], KEYS[i + 1], ARGV[i], ARGV[i + 1]
  local is_other_there = action ~= 'expire' and redis.call('EXISTS', other) == 1
  local done = false
  local kind = redis.call('TYPE', key).ok
  if action == 'aside' or action == 'count' then
    done = not is_other_there
      and (
        (action == 'aside' and kind == argument)
        or (action == 'count' and kind == 'string' and not is_number(key))
      )
    if done then
      redis.call('RENAME', key, other)
    end
  elseif action == 'unlock' then
    done = redis.pcall('GET', key) == argument and not is_held(key, other) and redis.call('DEL', key) == 1
  elseif action == 'expire' then
    done = redis.call('PTTL', key) == -1 and redis.call('EXPIRE', key, argument) == 1
  elseif action == 'list' then
    done = is_other_there and redis.pcall('ZADD', key, whole(now_s), argument) == 1
  elseif action == 'unlist' then
    done = not is_other_there and redis.pcall('ZREM', key, argument) == 1
  end
  reply[#reply + 1] = done and 1 or 0
end
return reply
