-- Takes from and gives to the limits that all processes share. ARGV[1]: a JSON array of groups, each an array of steps
-- {kind, number of its key in KEYS, ...}. A group is done as a whole or not at all. Kinds:
--   rate    interval, brim, cost   one bucket (GCRA): cost * interval seconds go in, if they stay below the brim
--   hold    limit, lease, member   one of `limit` places, for `lease` seconds
--   add     seconds                into a bucket, whatever its level
--   renew   lease, member          a place that is held
--   free    member                 a place
-- Returns for each group whether it was done, and for each of its steps the level before: seconds in the bucket, places held.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6

local function level(key)
  return math.max(0, tonumber(redis.call('GET', key) or now) - now)
end

local function fill(key, seconds)
  if seconds > 0 then
    redis.call('SET', key, string.format('%.6f', now + seconds), 'PX', math.ceil(seconds * 1000) + 1000)
  else
    redis.call('DEL', key)
  end
end

local function lease(key, seconds, member)
  redis.call('ZADD', key, string.format('%.6f', now + seconds), member)
  redis.call('EXPIRE', key, math.ceil(seconds) + 1)
end

local answer = {}
for _, group in ipairs(cjson.decode(ARGV[1])) do
  local fits, levels = 1, {}
  for i, step in ipairs(group) do
    local kind, key = step[1], KEYS[step[2]]
    if kind == 'rate' then
      levels[i] = level(key)
      if levels[i] + step[5] * step[3] > step[4] + 1e-6 then fits = 0 end
    elseif kind == 'hold' then
      redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.6f', now))
      levels[i] = redis.call('ZCARD', key)
      if levels[i] >= step[3] then fits = 0 end
    else
      levels[i] = 0
    end
  end
  if fits == 1 then
    for i, step in ipairs(group) do
      local kind, key = step[1], KEYS[step[2]]
      if kind == 'rate' then
        if step[5] > 0 then fill(key, levels[i] + step[5] * step[3]) end
      elseif kind == 'hold' then
        lease(key, step[4], step[5])
      elseif kind == 'add' then
        fill(key, level(key) + step[3])
      elseif kind == 'renew' then
        if redis.call('ZSCORE', key, step[4]) then lease(key, step[3], step[4]) end
      elseif kind == 'free' then
        redis.call('ZREM', key, step[3])
      end
    end
  end
  for i = 1, #levels do levels[i] = string.format('%.6f', levels[i]) end
  answer[#answer + 1] = { fits, levels }
end
return answer
