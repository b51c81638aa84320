-- text_of: return a text or bytes field of a protobuf message by number; '' if it is missing or cannot be read.
local function text_of(message, number)
  local at, size = 1, #message
  local function varint()
    local value, scale = 0, 1
    while at <= size do
      local byte = string.byte(message, at)
      at = at + 1
      value = value + (byte % 128) * scale
      if byte < 128 then
        return value
      end
      scale = scale * 128
    end
  end
  while at <= size do
    local tag = varint()
    local kind = tag and tag % 8
    if kind == 0 then
      varint()
    elseif kind == 1 then
      at = at + 8
    elseif kind == 5 then
      at = at + 4
    elseif kind == 2 then
      local length = varint() or size
      if math.floor(tag / 8) == number then
        return string.sub(message, at, at + length - 1)
      end
      at = at + length
    else
      return ''
    end
  end
  return ''
end

-- lock_of: return the unique lock that a message names, or ''. For a grouped task, Go stores the lock only in the
-- message.
local function lock_of(message)
  return text_of(message, 10)
end
