-- Exact arithmetic on whole numbers up to 2^53 - 1. Lua's numbers are doubles, so no product and no
-- sum may pass 2^53 before it is used. domain/src/bucket.rs is the reference; a test holds this
-- against it.

local MAX = 9007199254740991

-- As text, exactly (tostring keeps 14 digits only).
local function text(number)
  return string.format('%.0f', number)
end

-- floor(a / b), exactly.
local function quotient(a, b)
  return (a - math.fmod(a, b)) / b
end

-- floor((elapsed * amount + fraction) / interval), at most MAX, and the rest of that division.
-- Needs fraction < interval <= 2^35 and amount < 2^53. Whole intervals are multiplied directly;
-- the rest is multiplied with the 17-bit digits of the amount, so that nothing passes 2^53.
local function refill(elapsed, amount, interval, fraction)
  local part = math.fmod(elapsed, interval)
  local gained, rest = 0, 0
  for shift = 51, 0, -17 do
    local digit = math.floor(amount / 2 ^ shift) % 131072
    local dividend = rest * 131072 + part * digit
    rest = math.fmod(dividend, interval)
    gained = gained * 131072 + (dividend - rest) / interval
  end
  rest = rest + fraction
  if rest >= interval then
    gained, rest = gained + 1, rest - interval
  end
  return math.min((elapsed - part) / interval * amount + gained, MAX), rest
end

-- The level of a continuous bucket {level, fraction, at, amount, interval} at `now`: it fills up to
-- `ceiling`. A clock that moves back changes nothing.
local function fill(bucket, ceiling, now)
  local gained, fraction =
    refill(math.max(now - bucket.at, 0), bucket.amount, bucket.interval, bucket.fraction)
  bucket.at = math.max(bucket.at, now)
  if gained >= ceiling - bucket.level then
    bucket.level, bucket.fraction = ceiling, 0
  else
    bucket.level, bucket.fraction = bucket.level + gained, fraction
  end
end

-- What a gateway should get of `available`: all of the need, and of the rest at most half an equal
-- share among `gateways`. The caller has checked that the need is there.
local function fair(need, want, available, gateways)
  return math.min(math.max(want, need), math.max(need, quotient(math.max(available, 0), 2 * gateways)))
end
