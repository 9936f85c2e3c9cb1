-- ARGV: keys. Returns how many entries went.
local count = 0
for _, key in ipairs(ARGV) do
  count = count + remove(key)
end
return count
