--[[
  resign: give up the leader lease of a service when this worker stops, so that another worker can take the lease at
  once.

  KEYS[1]  string  token of the worker that leads
  ARGV[1]  string  token of this worker

  returns  1  given up   0  another worker holds the lease, or nobody does
]]
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
