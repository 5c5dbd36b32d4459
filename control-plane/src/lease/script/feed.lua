-- What operators and claims do to one bucket (L is 1), and looking at all without changing any.
--
-- feed    ARGV, after those of open.lua: amount, unclaimed
--         Adds tokens that Postgres has released to a periodic bucket, or takes back up to -amount;
--         and notes what Postgres has left. Answers {"fed", now, home, what was taken back}
-- adjust  ARGV: amount
--         Tops a continuous bucket up, to its ceiling at most, or takes from it, below zero if need
--         be. Answers {"adjusted", now, home, then what append_buckets adds}
-- look    Answers {"look", now, home, L, then what append_buckets adds, then gateway, tokens and
--         requests held, for each}

local function feed()
  local bucket = buckets[1]
  local amount, taken = tonumber(ARGV[ARGUMENTS + 1]), 0
  if amount < 0 then
    taken = math.min(math.max(bucket.level, 0), -amount)
    bucket.level = bucket.level - taken
  else
    bucket.level = math.min(bucket.level + amount, MAX)
  end
  bucket.unclaimed, bucket.unknown, bucket.checked = tonumber(ARGV[ARGUMENTS + 2]), false, now
  save_bucket(bucket)
  return { 'fed', now, home, taken }
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
