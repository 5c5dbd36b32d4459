-- What operators and claims do to one bucket (L is 1), and looking at all without changing any.
--
-- feed    ARGV, after those of open.lua: amount, unclaimed, claimed, "settled" or ""
--         Adds tokens that Postgres has released to a periodic bucket, or takes back up to -amount;
--         and notes what Postgres has left. claimed is what it has released in this period, this block
--         included, or "" where it releases nothing; settled: no block before this one is under way.
--         Answers {"fed", now, home, what was taken back}
-- adjust  ARGV: amount
--         Tops a continuous bucket up, to its ceiling at most, or takes from it, below zero if need
--         be. Answers {"adjusted", now, home, then what append_buckets adds}
-- look    Answers {"look", now, home, L, then what append_buckets adds, then gateway, tokens and
--         requests held, for each}

-- A block that was claimed and is not here yet is waited for no longer than this: the replica that should
-- bring it may be gone.
local COMING_MS = 1000

-- Blocks of different replicas may come in another order than they were claimed in. What was claimed
-- before this one and is not here is coming. Returns whether this one was waited for.
local function note_claimed(bucket, amount, claimed, settled)
  if amount > 0 and claimed <= bucket.claimed and bucket.coming > 0 then
    bucket.coming = math.max(bucket.coming - amount, 0)
    return true
  end
  local missing = claimed - amount - bucket.claimed
  if settled then
    bucket.claimed, bucket.coming = claimed, 0
  elseif missing > 0 then
    bucket.claimed = claimed
    bucket.coming, bucket.coming_until = math.min(bucket.coming + missing, MAX), now + COMING_MS
  else
    bucket.claimed = math.max(bucket.claimed, claimed)
  end
  return false
end

local function feed()
  local bucket = buckets[1]
  local amount, claimed, came_late = tonumber(ARGV[ARGUMENTS + 1]), tonumber(ARGV[ARGUMENTS + 3]), false
  local change = math.max(amount, math.min(-bucket.level, 0))
  bucket.level = math.min(bucket.level + change, MAX)
  if claimed then
    came_late = note_claimed(bucket, amount, claimed, ARGV[ARGUMENTS + 4] == 'settled')
  else
    -- What is taken back counts as not claimed.
    bucket.claimed = math.max(bucket.claimed + change, 0)
  end
  -- What is left after a late one was told already, with one that was claimed after it.
  if not came_late then
    bucket.unclaimed, bucket.unknown, bucket.checked = tonumber(ARGV[ARGUMENTS + 2]), false, now
  end
  save_bucket(bucket)
  return { 'fed', now, home, math.max(-change, 0) }
end

local function adjust()
  local bucket = buckets[1]
  local level = bucket.level + tonumber(ARGV[ARGUMENTS + 1])
  bucket.level = math.max(math.min(level, ceiling(bucket)), -MAX)
  save_bucket(bucket)
  return append_buckets({ 'adjusted', now, home })
end

local function look()
  local answer = append_buckets({ 'look', now, home, limits })
  for name, entry in pairs(gateways) do
    answer[#answer + 1] = name
    answer[#answer + 1] = math.min(entry.held[1] + entry.old[1], MAX)
    answer[#answer + 1] = math.min(entry.held[2] + entry.old[2], MAX)
  end
  return answer
end
