-- Opens a tenant: its clock, what its gateways hold, and its buckets as they are now.
--
-- KEYS  1          the tenant's hash: gateway -> what it holds; and the fields
--                    :home     names this life of the tenant's keys: "<epoch>.<microseconds>"
--                    :now      the latest ms that was seen; the clock never moves back
--                    :leases   counts leases, so that each has a stamp of its own
--                    :reserved a large need that is spared for, see ask.lua
--                    :started:<limit>  a continuous bucket was made in this life
--       2 .. L+1   one hash per limit, in the order of ARGV
--       L+2        (ask only) the last call of each worker of the gateway, and its answer
-- ARGV  1 operation   2 epoch   3 lease lifetime in ms   4 longest lease of a continuous limit in ms
--       5 longest lease in ms where all limits are periodic   6 parts: a lease may be as long as that while
--         a gateway holds at most one in so many of what is left
--       7 the home that the starts in this call were decided for   8 L, the number of limits
--       then seven for each limit: name, "c" (continuous) or "p" (periodic), unit (1 tokens,
--         2 requests), capacity, amount or period start, interval or period end,
--         start ("full", "lost" or "" when not decided)
--       then those of the operation
--       and at the end: what the time should be, in microseconds, and "vouched" when that is right
--         whatever Redis' clock shows
-- All numbers are whole, times are ms since 1970. Each answer ends with what Redis' clock shows, in
-- microseconds. {"doubt", time, ""} changes nothing: Redis' clock is not where it should be.
--
-- A key that another Redis process wrote (epoch), or that was written before the tenant's hash was
-- lost (home), counts as missing. So whichever of the keys Redis loses, nothing is minted:
-- a missing periodic bucket is empty, and what it had stays unspent; a missing continuous bucket is
-- full only when it has never been granted from, else it starts empty and refills when every lease
-- drawn from it has ended.
--
-- The tenant's hash and its continuous buckets don't expire, because a continuous bucket that
-- expires would count as lost. Without continuous limits, all expire after the last period.

local operation, epoch = ARGV[1], ARGV[2]
local lifetime, longest, longest_periodic = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local parts, known_home, limits = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local HEADER = 8
local ARGUMENTS = HEADER + 7 * limits
-- Redis' clock may be that far from what it should be: calls take time.
local NEAR_MICROS = 250000
local now, micros, home, leases, reserved
local gateways, buckets, started = {}, {}, {}

-- The time is the caller's, so that a jump of Redis' clock is no time that passes. Whether it is
-- to be trusted.
local function read_clock()
  local clock, expected = redis.call('TIME'), tonumber(ARGV[#ARGV - 1])
  micros = clock[1] * 1000000 + clock[2]
  now = quotient(expected, 1000)
  return ARGV[#ARGV] == 'vouched' or math.abs(micros - expected) <= NEAR_MICROS
end

local ENTRY = '^(%d+) (%d+) (%d+) (%d+) (%S+) (%d+) (%d+) (%d+) (%S+)$'

-- What a gateway holds unspent at most: `held` until `ends`, under `stamp`; and `old`, which an
-- answer with a new stamp has replaced. The gateway may spend that until the answer arrives, and its
-- workers what they have drawn of it until its end, so it counts until then.
local function new_entry()
  return { ends = 0, held = { 0, 0 }, seen = 0, stamp = '-', old_ends = 0, old = { 0, 0 }, old_stamp = '-' }
end

local function parse_entry(field)
  local ends, tokens, requests, seen, stamp, old_ends, old_tokens, old_requests, old_stamp =
    string.match(field, ENTRY)
  if not ends then
    return new_entry()
  end
  return {
    ends = tonumber(ends), held = { tonumber(tokens), tonumber(requests) }, seen = tonumber(seen), stamp = stamp,
    old_ends = tonumber(old_ends), old = { tonumber(old_tokens), tonumber(old_requests) }, old_stamp = old_stamp,
  }
end

local function entry_text(entry)
  return table.concat({
    text(entry.ends), text(entry.held[1]), text(entry.held[2]), text(entry.seen), entry.stamp,
    text(entry.old_ends), text(entry.old[1]), text(entry.old[2]), entry.old_stamp,
  }, ' ')
end

local function read_gateways()
  local flat = redis.call('HGETALL', KEYS[1])
  local fields = {}
  for index = 1, #flat, 2 do
    fields[flat[index]] = flat[index + 1]
  end
  home = fields[':home']
  if not home or string.sub(home, 1, #epoch + 1) ~= epoch .. '.' then
    home = epoch .. '.' .. text(micros)
    leases = micros
    if operation ~= 'look' then
      redis.call('DEL', KEYS[1])
      redis.call('HSET', KEYS[1], ':home', home, ':now', text(now), ':leases', text(leases))
    end
    return
  end
  now = math.max(now, tonumber(fields[':now']))
  leases = tonumber(fields[':leases'])
  reserved = fields[':reserved']
  for name, value in pairs(fields) do
    if string.sub(name, 1, 9) == ':started:' then
      started[string.sub(name, 10)] = true
    elseif string.sub(name, 1, 1) ~= ':' then
      gateways[name] = parse_entry(value)
    end
  end
end

-- What all gateways hold of a unit.
local function held(unit)
  local sum = 0
  for _, entry in pairs(gateways) do
    sum = math.min(sum + entry.held[unit] + entry.old[unit], MAX)
  end
  return sum
end

-- A bucket fills up to what nobody holds. Gateways hold more than the capacity only after a cut.
local function ceiling(bucket)
  return math.max(bucket.capacity - held(bucket.unit), 0)
end

local function fill_all(time)
  for _, bucket in ipairs(buckets) do
    if bucket.continuous and not bucket.missing then
      fill(bucket, ceiling(bucket), time)
    end
  end
end

-- A bucket that is past `time` has seen that end: gateways that are gone keep their entries for a
-- while, and what they held must not lower the bucket once more.
local function fill_to_end(time)
  for _, bucket in ipairs(buckets) do
    if bucket.continuous and not bucket.missing and bucket.at < time then
      fill(bucket, ceiling(bucket), time)
    end
  end
end

-- Refills up to now, and drops what gateways held when its end has passed. Each stretch between two
-- ends is refilled with what was held in it: tokens that may have been spent just before an end
-- must not have refilled before.
local function settle()
  local ends = {}
  for _, entry in pairs(gateways) do
    if entry.held[1] + entry.held[2] + entry.old[1] + entry.old[2] > 0 then
      for _, time in ipairs({ entry.old_ends, math.max(entry.ends, entry.old_ends) }) do
        if time > 0 and time <= now then
          ends[#ends + 1] = time
        end
      end
    end
  end
  table.sort(ends)
  for _, time in ipairs(ends) do
    fill_to_end(time)
    for _, entry in pairs(gateways) do
      if math.max(entry.ends, entry.old_ends) <= time then
        entry.held = { 0, 0 }
      end
      if entry.old_ends <= time then
        entry.old = { 0, 0 }
      end
    end
  end
  fill_all(now)
end

local function save_bucket(bucket)
  if bucket.continuous then
    redis.call('HSET', bucket.key, 'home', home, 'kind', bucket.kind, 'level', text(bucket.level),
      'fraction', text(bucket.fraction), 'at', text(bucket.at), 'interval', text(bucket.interval))
    redis.call('PERSIST', bucket.key)
  else
    redis.call('HSET', bucket.key, 'home', home, 'kind', bucket.kind, 'level', text(bucket.level),
      'start', text(bucket.starts), 'capacity', bucket.unknown and '' or text(bucket.capacity),
      'unclaimed', text(bucket.unclaimed), 'checked', text(bucket.checked), 'claimed', text(bucket.claimed),
      'coming', text(bucket.coming), 'coming_until', text(bucket.coming_until))
    redis.call('PEXPIRE', bucket.key, text(bucket.ends - now + 3600000))
  end
end

-- A continuous bucket that is not there: lost, when it was made in this life of the keys; else it
-- is for Postgres to say, and `missing` until then.
local function start_bucket(bucket, start)
  bucket.fraction = 0
  if start == 'full' and known_home == home and not started[bucket.name] then
    bucket.level, bucket.at = ceiling(bucket), now
  elseif start == 'lost' or started[bucket.name] then
    bucket.level, bucket.at = 0, now + longest
  else
    bucket.level, bucket.at, bucket.missing = 0, now, true
    return
  end
  if operation ~= 'look' then
    redis.call('HSET', KEYS[1], ':started:' .. bucket.name, '1')
    save_bucket(bucket)
  end
end

local function read_bucket(index)
  local first = HEADER + 7 * (index - 1)
  local bucket = {
    key = KEYS[1 + index], name = ARGV[first + 1], continuous = ARGV[first + 2] == 'c',
    unit = tonumber(ARGV[first + 3]), kind = ARGV[first + 2] .. ARGV[first + 3], capacity = tonumber(ARGV[first + 4]),
  }
  local stored = redis.call('HMGET', bucket.key, 'home', 'kind', 'level', 'fraction', 'at', 'start', 'capacity',
    'unclaimed', 'checked', 'interval', 'claimed', 'coming', 'coming_until')
  local known = stored[1] == home and stored[2] == bucket.kind
  if bucket.continuous then
    bucket.amount, bucket.interval = tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
    if known then
      bucket.level, bucket.at = tonumber(stored[3]), tonumber(stored[5])
      -- The fraction counts in parts of its interval.
      bucket.fraction = stored[10] == ARGV[first + 6] and tonumber(stored[4]) or 0
    else
      start_bucket(bucket, ARGV[first + 7])
    end
  else
    bucket.starts, bucket.ends = tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
    known = known and stored[6] == ARGV[first + 5]
    bucket.level = known and tonumber(stored[3]) or 0
    bucket.unclaimed = known and tonumber(stored[8]) or 0
    bucket.checked = known and tonumber(stored[9]) or 0
    -- What Postgres has released as far as Redis has heard, and how much of that is not here yet.
    bucket.claimed = known and tonumber(stored[11]) or 0
    bucket.coming_until = known and tonumber(stored[13]) or 0
    bucket.coming = bucket.coming_until > now and tonumber(stored[12]) or 0
    -- What Postgres has left is not known after a loss, in a new period, or with another capacity.
    bucket.unknown = not known or stored[7] ~= ARGV[first + 4]
  end
  return bucket
end

-- Whether the periods that were passed hold this moment.
local function in_period()
  for index = 1, limits do
    local first = HEADER + 7 * (index - 1)
    if ARGV[first + 2] == 'p' and (now < tonumber(ARGV[first + 5]) or now >= tonumber(ARGV[first + 6])) then
      return false
    end
  end
  return true
end

-- Reads all; nil, or the answer that says what must be decided elsewhere before.
local function open()
  if not read_clock() then
    return { 'doubt', now, '' }
  end
  read_gateways()
  if not in_period() then
    return { 'period', now, home }
  end
  local missing = false
  for index = 1, limits do
    buckets[index] = read_bucket(index)
    missing = missing or buckets[index].missing
  end
  if missing and operation ~= 'look' then
    return { 'start', now, home }
  end
  settle()
end

-- Appends what the buckets have: for each whether it is known, level, fraction, its time, what is
-- unclaimed or coming, and what the ask had to leave in it for a larger one.
local function append_buckets(answer)
  answer[#answer + 1] = held(1)
  answer[#answer + 1] = held(2)
  for _, bucket in ipairs(buckets) do
    answer[#answer + 1] = (bucket.missing or bucket.unknown) and 0 or 1
    answer[#answer + 1] = bucket.level
    answer[#answer + 1] = bucket.fraction or 0
    answer[#answer + 1] = bucket.at or now
    answer[#answer + 1] = bucket.continuous and 0 or bucket.unclaimed + bucket.coming
    answer[#answer + 1] = bucket.spared or 0
  end
  return answer
end
