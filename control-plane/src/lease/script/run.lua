
local function run()
  local elsewhere = open()
  if elsewhere then
    return elsewhere
  elseif operation == 'ask' or operation == 'take' then
    return decide_ask()
  elseif operation == 'feed' then
    return feed()
  elseif operation == 'adjust' then
    return adjust()
  elseif operation == 'look' then
    return look()
  end
end

local reply = run()
if not reply then
  return redis.error_reply('unknown operation')
end
reply[#reply + 1] = micros
return reply
