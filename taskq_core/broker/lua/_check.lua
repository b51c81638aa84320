-- check: raise an error for a key of another type, before the first write. `command` reads the size of the right type.
local function check(command, ...)
  for _, key in ipairs({ ... }) do
    redis.call(command, key)
  end
end
