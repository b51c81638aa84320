--[[
  resign: give up the lease of a service, if this worker holds it.

  KEYS[1]  string  token of the worker that leads
  ARGV[1]  string  token of this worker

  returns  1  given up   0  it was not this worker's
]]
if redis.pcall('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
