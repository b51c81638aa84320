--[[
  lead: take or renew the leader lease of a service, so that only one of many workers does the work of this service.

  KEYS[1]  string  token of the worker that leads
  ARGV[1]  string  token of this worker
  ARGV[2]  int     length of the lease (ms)

  returns  1  this worker leads   0  another worker leads
]]
-- include _lead
return lead(KEYS[1], ARGV[1], ARGV[2]) and 1 or 0
