-- check: raise an error if a key has the wrong type. Scripts call this function before they write anything. `command`
-- is the command that reads the size of a key of the right type, such as LLEN for a list.
local function check(command, ...)
  for _, key in ipairs({ ... }) do
    redis.call(command, key)
  end
end
