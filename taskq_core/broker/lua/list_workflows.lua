--[[
  list_workflows: read a page of the workflows of a home queue, the newest first, with their progress. Changes nothing.

  KEYS[1]  zset    running workflows: id by start (Unix s)
  KEYS[2]  zset    ended workflows: id by end of retention (Unix s)
  ARGV[1]  string  prefix of the queue's taskq-only keys
  ARGV[2]  string  'b' running workflows, then ended ones   'r' running only   'e' ended only
  ARGV[3]  int     number of workflows to skip
  ARGV[4]  int     maximum number of workflows to read

  Deleted workflows are left out. If the key of a workflow is not a hash, only its id is returned.

  returns  number of running workflows, number of ended workflows, then per workflow: id, state, name, start and end
           (Unix ms), number of steps, number of ended steps, number of failures. Each member of a group counts as a step,
           but with more than 100 groups each group counts as one step
]]
local running, ended = redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[2])
local skip, count = tonumber(ARGV[3]), tonumber(ARGV[4])
local ids = {}

-- add: append ids of a sorted set to the page, until it is full.
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

-- number: return the number in a field, 0 for any other value.
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
