--[[
  list_workflows: read workflows whose home a queue is, the newest first, with how far each is.

  KEYS[1]  zset    workflows that run: id by start (Unix s)
  KEYS[2]  zset    workflows that have ended: id by when they are deleted (Unix s)
  ARGV[1]  string  what the own keys of the queue begin with
  ARGV[2]  string  'b' running ones, then ended ones   'r' running ones   'e' ended ones
  ARGV[3]  int     how many to leave out before
  ARGV[4]  int     how many to read at most

  Deleted workflows are left out. If a key is not a hash, only the id is returned.

  returns  how many run, how many have ended, and per workflow its id, state, name, when it began and ended (Unix ms),
           its steps, how many of them have ended, and how many failures count: members of a group each as a step, but
           in a workflow of more than 100 groups a group as one
]]
local running, ended = redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2])
local skip, count = tonumber(ARGV[3]), tonumber(ARGV[4])
local ids = {}

-- add: take ids of a list, as many as are wanted.
local function add(key, first)
  if #ids < count then
    for _, id in ipairs(redis.call('ZRANGE', key, first, first + count - #ids - 1, 'REV')) do
      ids[#ids + 1] = id
    end
  end
end

if ARGV[2] ~= 'e' and skip < running then
  add(KEYS[1], skip)
end
if ARGV[2] ~= 'r' then
  add(KEYS[2], math.max(0, ARGV[2] == 'b' and skip - running or skip))
end

-- number: the number in a field, 0 for any other value.
local function number(value)
  return tonumber(value or 0) or 0
end

local found = {}
for _, id in ipairs(ids) do
  local W = ARGV[1] .. 'wf:' .. id
  local facts = redis.pcall('HMGET', W, 'state', 'name', 'created', 'ended', 'nodes', 'open', 'bad', 'groups')
  if facts.err then
    if not string.find(tostring(facts.err), 'WRONGTYPE', 1, true) then
      return facts
    end
    found[#found + 1] = { id, '', '', '', '', 0, 0, 0 }
  elseif facts[1] and facts[1] ~= 'building' then
    local total, failed = number(facts[5]), number(facts[7])
    local over = total - number(facts[6])
    local groups = {}
    for i in string.gmatch(facts[8] or '', '%d+') do
      groups[#groups + 1] = i
    end
    if #groups <= 100 then
      for _, i in ipairs(groups) do
        local its = redis.call('HMGET', W, 's' .. i, 'gt' .. i, 'gd' .. i, 'gf' .. i, 't' .. i)
        local members, lost = number(its[2]), number(its[4])
        total = total - 1 + members
        if its[1] == 'd' or its[1] == 'f' then
          over = over - 1
        elseif its[1] == 'x' or its[1] == 'c' then
          over = over - 1 + members - number(its[3]) - lost
        end
        over = over + number(its[3]) + lost
        if not its[5] then
          failed = failed + lost - (its[1] == 'f' and 1 or 0)
        end
      end
    end
    if facts[1] == 'cancelled' then
      over = total
    end
    found[#found + 1] = { id, facts[1], facts[2] or '', facts[3] or '', facts[4] or '', total, over, failed }
  end
end
return { running, ended, found }
