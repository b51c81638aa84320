--[[
  identify: read the generations of tasks, and store one for each task that has none.

  KEYS[1]  string  key that never exists
  ARGV[1..]  string  task keys (at most 200)

  returns  per task: its generation, '-' if there is no such task, see `_generation`
]]
-- include _generation
redis.call('DEL', KEYS[1]) -- comes first: after a DEL, even a full Redis allows the writes below
local generations = {}
for i, key in ipairs(ARGV) do
  generations[i] = generation_of(key)
end
return generations
