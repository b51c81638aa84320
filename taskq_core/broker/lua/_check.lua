-- check: raise an error for a key of the wrong type, before anything is written. `command` reads the size of a key of the
-- right type.
local function check(command, ...)
  for _, key in ipairs({ ... }) do
    redis.call(command, key)
  end
end
