-- Decides on a lease, over all limits at once. As the operation "take" it decides with what Redis
-- has, because Postgres cannot be asked: it claims nothing.
--
-- ARGV, after those of open.lua: base of the stamp, gateway, worker, call, the ask's stamp, then
-- tokens and requests of each: need, want, spent, refund, owe; then 1 for a fresh lease, else 0
-- Answers {outcome, now, home, stamp, ttl, tokens, requests, then what append_buckets adds} with the
-- outcome "granted", "refused", "replayed" or "outdated"; or, having changed nothing:
-- {"period", now, home}  other periods must be passed
-- {"start", now, home}   whether continuous buckets start full must be decided
-- {"claim", now, home, then for each limit: 1 if it must be claimed for, what is missing, what is welcome}
-- {"unfed", now, home}   the need is not here, but a block on its way may have it, or (take only) Postgres

-- The state of calls is kept longer than any lease lives. When it is gone, or the call is older,
-- a refund cannot count twice: it names a lease that has ended.
local REMEMBERED_MS = 600000
-- An exhausted bucket asks Postgres again after this, in case Redis was not told of a change.
local RECHECK_MS = 10000
-- What a large need has found is kept for it at most this long.
local MAX_RESERVED_MS = 60000

local ask, calls_key, reservation

local function pair(index)
  return { tonumber(ARGV[ARGUMENTS + index]), tonumber(ARGV[ARGUMENTS + index + 1]) }
end

-- A need that was refused, and may find itself undercut by smaller ones for ever: while it lasts,
-- what it needs is spared. Since, until, tokens, requests, gateway.
local function read_reservation()
  local since, ends, tokens, requests, gateway =
    string.match(reserved or '', '^(%d+) (%d+) (%d+) (%d+) (%S+)$')
  if since then
    return { since = tonumber(since), ends = tonumber(ends), need = { tonumber(tokens), tonumber(requests) },
      gateway = gateway }
  end
end

local function covers(amount, other)
  return amount[1] >= other[1] and amount[2] >= other[2]
end

local function read_ask()
  ask = {
    base = ARGV[ARGUMENTS + 1], gateway = ARGV[ARGUMENTS + 2], worker = ARGV[ARGUMENTS + 3],
    call = tonumber(ARGV[ARGUMENTS + 4]), stamp = ARGV[ARGUMENTS + 5],
    need = pair(6), want = pair(8), spent = pair(10), refund = pair(12), owe = pair(14),
    fresh = ARGV[ARGUMENTS + 16] == '1',
  }
  calls_key = KEYS[limits + 2]
  reservation = read_reservation()
end

local function answer(outcome, stamp, ttl, granted)
  return append_buckets({ outcome, now, home, stamp, ttl, granted[1], granted[2] })
end

-- The answer to a call that has been decided before, or was overtaken by a later one.
local function answer_again(last, entry)
  local call, ends, tokens, requests, stamp = string.match(last, '^(%d+) (%d+) (%d+) (%d+) (%S+)$')
  if not call or ask.call > tonumber(call) then
    return nil
  end
  -- Who still asks must not be forgotten: what it owes would be debited again.
  redis.call('PEXPIRE', calls_key, text(REMEMBERED_MS + 3600000))
  local outcome = ask.call == tonumber(call) and 'replayed' or 'outdated'
  local rest = math.max(tonumber(ends) - now, 0)
  if outcome == 'replayed' and stamp == entry.stamp and rest > 0 then
    return answer(outcome, stamp, rest, { tonumber(tokens), tonumber(requests) })
  end
  return answer(outcome, entry.stamp == '-' and '' or entry.stamp, math.max(entry.ends - now, 0), { 0, 0 })
end

-- A lease with a stamp of its own. A stamp thus names one lease of one gateway: what is said under
-- another is not about this one. What is held of the one before counts until its end.
local function replace(entry)
  for unit = 1, 2 do
    entry.old[unit] = math.min(entry.old[unit] + entry.held[unit], MAX)
  end
  entry.old_ends, entry.old_stamp = math.max(entry.ends, entry.old_ends), entry.stamp
  leases = leases + 1
  entry.ends, entry.held, entry.stamp = 0, { 0, 0 }, ask.base .. '.' .. text(leases)
end

-- Another lease, unless the gateway's lease lives and is on the same terms.
local function renew(entry, forgotten)
  local base = string.match(entry.stamp, '^(.*)%.%d+$')
  if entry.ends <= now or base ~= ask.base or forgotten then
    replace(entry)
  end
  if forgotten then
    -- This call and others may be repeated ones: what they say was spent must not count once more.
    entry.old_stamp = '-'
  end
end

-- Another lease also when a worker of the gateway was lost: what that one had drawn is never given
-- back and never said to be spent, so it would count as held for as long as the lease is renewed.
-- After what the gateway gives back was counted: only what it cannot account for is left behind.
local function refresh(entry)
  if ask.fresh and ask.stamp == entry.stamp then
    replace(entry)
  end
end

-- Counts what the gateway spent and gave back, and what it owes. Spent counts against what was
-- replaced first: that never ends later, so the sum stays at or above what the gateway can spend.
local function settle_ask(entry)
  for unit = 1, 2 do
    local spent = ask.spent[unit]
    if ask.stamp == entry.stamp or ask.stamp == entry.old_stamp then
      local old = math.min(spent, entry.old[unit])
      entry.old[unit], spent = entry.old[unit] - old, spent - old
      if ask.stamp == entry.old_stamp then
        -- It was of other terms, so no bucket gets it; but nobody will spend it.
        entry.old[unit] = math.max(entry.old[unit] - ask.refund[unit], 0)
      end
    end
    local refund = 0
    if ask.stamp == entry.stamp then
      entry.held[unit] = math.max(entry.held[unit] - spent, 0)
      refund = math.min(ask.refund[unit], entry.held[unit])
      entry.held[unit] = entry.held[unit] - refund
    end
    for _, bucket in ipairs(buckets) do
      if bucket.unit == unit then
        bucket.level = math.max(math.min(bucket.level + refund, MAX) - ask.owe[unit], -MAX)
      end
    end
  end
end

-- What this ask must leave in a bucket for a larger need, that of whichever gateway.
local function spared(bucket)
  local need = reservation and reservation.ends > now and reservation.need[bucket.unit] or 0
  if bucket.continuous and ask.need[bucket.unit] < need and need <= bucket.capacity then
    return need
  end
  return 0
end

-- What is there for a need at most: in the bucket, and where periodic also in Postgres.
local function available(bucket)
  if bucket.continuous then
    return bucket.level - bucket.spared
  elseif operation == 'take' then
    return bucket.level
  end
  return math.min(bucket.level + (bucket.unknown and bucket.capacity or math.max(bucket.unclaimed, 0)), MAX)
end

-- Who shares the tenant: gateways that asked within two lease lifetimes.
local function sharers()
  local count = 1
  for name, entry in pairs(gateways) do
    if name ~= ask.gateway and entry.seen > now - 2 * lifetime then
      count = count + 1
    end
  end
  return count
end

-- Whether Postgres may have a need that is not here, or blocks that are on their way.
local function may_come(bucket)
  if bucket.continuous then
    return false
  elseif operation == 'ask' then
    bucket.unknown = bucket.unknown or bucket.checked + RECHECK_MS <= now
  end
  return bucket.unknown or bucket.level + bucket.unclaimed + bucket.coming >= ask.need[bucket.unit]
end

-- What each unit should get; nil when a need is not there, and then whether it may come and nothing
-- can be claimed for it.
local function decide()
  local count, unfed = sharers(), false
  local should = { ask.want[1], ask.want[2] }
  for _, bucket in ipairs(buckets) do
    bucket.spared = spared(bucket)
  end
  for _, bucket in ipairs(buckets) do
    local need, there = ask.need[bucket.unit], available(bucket)
    if there < need then
      if not may_come(bucket) then
        return nil, false
      end
      unfed = unfed or operation == 'take' or not bucket.unknown
    end
    should[bucket.unit] = math.min(should[bucket.unit], fair(need, ask.want[bucket.unit], there, count))
  end
  return not unfed and should or nil, unfed
end

-- Which buckets must be fed before this can be granted; nil when none. What gets a part at least of
-- what it should get goes without.
local function claims(should)
  local found, list = false, { 'claim', now, home }
  for _, bucket in ipairs(buckets) do
    local least = math.max(ask.need[bucket.unit], math.min(should[bucket.unit], 1))
    local wanted = operation == 'ask' and not bucket.continuous
      and (bucket.unknown or (bucket.level < least and bucket.unclaimed > 0))
    found = found or wanted
    list[#list + 1] = wanted and 1 or 0
    list[#list + 1] = math.max(least - bucket.level, 0)
    list[#list + 1] = math.max(should[bucket.unit] - bucket.level, 0)
  end
  return found and list or nil
end

-- When a lease ends with which a gateway holds that much: as late as its limits allow where that is
-- little of what they have left, and after a lease's lifetime else; never after a period.
local function ends_at(holds)
  local count, plenty, longest_here, period = parts, true, longest_periodic, math.huge
  for name, entry in pairs(gateways) do
    if name ~= ask.gateway and math.max(entry.ends, entry.old_ends) > now then
      count = count + parts
    end
  end
  for _, bucket in ipairs(buckets) do
    plenty = plenty and quotient(math.max(available(bucket), 0), count) >= holds[bucket.unit]
    if bucket.continuous then
      longest_here = math.min(longest_here, longest)
    else
      period = math.min(period, bucket.ends)
    end
  end
  return math.min(now + (plenty and math.max(longest_here, lifetime) or lifetime), period)
end

local function grant(entry, should)
  local granted = { should[1], should[2] }
  for _, bucket in ipairs(buckets) do
    granted[bucket.unit] = math.max(math.min(granted[bucket.unit], bucket.level), 0)
  end
  for _, bucket in ipairs(buckets) do
    bucket.level = bucket.level - granted[bucket.unit]
  end
  for unit = 1, 2 do
    entry.held[unit] = math.min(entry.held[unit] + granted[unit], MAX)
  end
  if entry.held[1] + entry.held[2] > 0 then
    entry.ends = math.max(entry.ends, ends_at(entry.held))
  end
  return granted
end

local function save_reservation()
  redis.call('HSET', KEYS[1], ':reserved', table.concat({ text(reservation.since), text(reservation.ends),
    text(reservation.need[1]), text(reservation.need[2]), reservation.gateway }, ' '))
end

-- How long until a continuous bucket has a need if nobody else takes from it.
local function wait_ms(bucket, need)
  local parts = (need - bucket.level) * bucket.interval - bucket.fraction
  return math.max(bucket.at - now, 0) + math.max(math.ceil(parts / bucket.amount), 0)
end

-- Has a need spared for that was refused just now, if it is more than one, and nothing but continuous
-- buckets that could hold it stands in its way. One need at a time, the oldest; its own gateway may
-- take its place with one that covers it. After it, all take what they find for as long as it
-- lasted: or large needs would starve small ones.
local function reserve()
  local wait, large = 0, false
  for _, bucket in ipairs(buckets) do
    local need = ask.need[bucket.unit]
    if available(bucket) < need then
      if not bucket.continuous or need > bucket.capacity then
        return
      end
      wait, large = math.max(wait, wait_ms(bucket, need)), large or need > 1
    end
  end
  local since = now
  if not large then
    return
  elseif reservation and reservation.ends > now then
    if reservation.gateway ~= ask.gateway or not covers(ask.need, reservation.need) then
      return
    end
    since = reservation.since
  elseif reservation and now < 2 * reservation.ends - reservation.since then
    return
  end
  local ends = now + math.min(wait + lifetime, MAX_RESERVED_MS)
  reservation = { since = since, ends = ends, need = ask.need, gateway = ask.gateway }
  save_reservation()
end

-- A need that covers the one that is spared for has been met.
local function end_reservation()
  if reservation and reservation.ends > now and covers(ask.need, reservation.need) then
    reservation.ends = now
    save_reservation()
  end
end

-- Forgets gateways that hold nothing and have not asked for long.
local function forget_gateways()
  for name, entry in pairs(gateways) do
    if math.max(entry.ends, entry.old_ends) <= now and entry.seen < now - REMEMBERED_MS then
      redis.call('HDEL', KEYS[1], name)
    end
  end
end

local function save_tenant(entry)
  redis.call('HSET', KEYS[1], ask.gateway, entry_text(entry), ':now', text(now), ':leases', text(leases))
  local keep_until = now + REMEMBERED_MS
  for _, bucket in ipairs(buckets) do
    save_bucket(bucket)
    keep_until = math.max(keep_until, bucket.continuous and MAX or bucket.ends + 3600000)
  end
  if keep_until == MAX or next(started) then
    redis.call('PERSIST', KEYS[1])
  else
    redis.call('PEXPIRE', KEYS[1], text(keep_until - now))
  end
end

local function save_call(entry, granted, forgotten)
  if forgotten then
    redis.call('DEL', calls_key)
  elseif redis.call('HLEN', calls_key) > 64 then
    local flat = redis.call('HGETALL', calls_key)
    for index = 1, #flat, 2 do
      local ends = tonumber(string.match(flat[index + 1], '^%d+ (%d+) '))
      if ends and ends < now - REMEMBERED_MS then
        redis.call('HDEL', calls_key, flat[index])
      end
    end
  end
  local ends = math.max(entry.ends, now)
  redis.call('HSET', calls_key, ':home', home, ask.worker,
    table.concat({ text(ask.call), text(ends), text(granted[1]), text(granted[2]), entry.stamp }, ' '))
  -- As other keys, an hour longer: then no lease is lost when Redis' clock jumps by that much.
  redis.call('PEXPIRE', calls_key, text(REMEMBERED_MS + 3600000))
end

local function decide_ask()
  read_ask()
  local entry = gateways[ask.gateway] or new_entry()
  local remembered = redis.call('HMGET', calls_key, ':home', ask.worker)
  local forgotten = remembered[1] ~= home
  local again = not forgotten and remembered[2] and answer_again(remembered[2], entry)
  if again then
    return again
  end
  gateways[ask.gateway] = entry
  renew(entry, forgotten)
  settle_ask(entry)
  refresh(entry)
  local should, unfed = decide()
  if unfed then
    return { 'unfed', now, home }
  end
  local needed = should and claims(should)
  if needed then
    return needed
  end
  local granted = { 0, 0 }
  if should then
    granted = grant(entry, should)
    end_reservation()
  else
    reserve()
  end
  entry.seen = now
  forget_gateways()
  save_tenant(entry)
  save_call(entry, granted, forgotten)
  return answer(should and 'granted' or 'refused', entry.stamp, math.max(entry.ends - now, 0), granted)
end
