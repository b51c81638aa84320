--[[
  lead: take or renew the lease of one service, so that one of many workers acts.

  KEYS[1]  string  token of the worker that leads
  ARGV[1]  string  token of this worker
  ARGV[2]  int     ms the lease lasts

  returns  1  leads   0  another does
]]
-- include _lead
return lead(KEYS[1], ARGV[1], ARGV[2]) and 1 or 0
