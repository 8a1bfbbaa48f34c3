#!lua name=weft

-- Every atomic move of the broker. Called by functions.py, which says what each takes and gives; layout.py says what the
-- keys hold. All keys of a call carry the hash tag of KEYS[1], so they are in one slot of a cluster.
--
-- Hash KEY:m   n depth, b bytes kept, p published, a acked, w waiting for their key, q last number of a delayed message,
--              g dedupe generation, t theoretical arrival time of the publish rate (GCRA), in ms; pt, ps and at, as: when
--              (ms) p and a were looked at last, and what they were; pt0, ps0, at0, as0: the time before
-- Entry        see layout.py: '>BBHI8I8I8HHB' = version, priority, attempt, published, not before, expires, bytes of key,
--              bytes of identity, flags; then key, identity, message

local HEAD = '>BBHI8I8I8HHB'
local BODY = 34 -- first byte after the head, counted from 1
local GROUP = 'w'
local ASKED = 2 -- a flag

local function tag_of(base)
  return string.match(base, '^{%w+}')
end

local function queue_of(base)
  return string.match(base, ':q:(.*)$')
end

local function number(value)
  return tonumber(value or 0) or 0
end

-- What a call did, for the bell and the answer.
local function begin(base, instance)
  return { base = base, tag = tag_of(base), instance = instance, ready = {}, due = 0 }
end

local function bits(work)
  return (work.ready[1] and 2 or 0) + (work.ready[2] and 4 or 0) + (work.ready[3] and 8 or 0)
end

local function ring(work)
  local ready = bits(work)
  if ready > 0 then
    redis.call('SPUBLISH', work.tag .. ':bell', work.instance .. '|q|' .. queue_of(work.base) .. '|' .. ready)
  end
  if work.due > 0 then
    redis.call('SPUBLISH', work.tag .. ':bell', work.instance .. '|z|' .. string.format('%.0f', work.due))
  end
  return ready
end

-- Puts an entry where it waits for its delivery: its stream, or the delayed ones until `not_before`. Its id in the stream.
local function place(work, entry, priority, not_before, now)
  local base = work.base
  if not_before > now then
    local member = redis.call('HINCRBY', base .. ':m', 'q', 1)
    redis.call('ZADD', base .. ':z', not_before, member)
    redis.call('HSET', base .. ':h', member, entry)
    redis.call('ZADD', work.tag .. ':z', 'LT', not_before, queue_of(base))
    if work.due == 0 or not_before < work.due then
      work.due = not_before
    end
  else
    work.ready[priority] = true
    return redis.call('XADD', base .. ':' .. priority, '*', 'e', entry)
  end
end

-- Takes the key for an entry; false: another one has it, and the entry waits for it.
local function take_key(work, key, entry)
  if redis.call('HINCRBY', work.base .. ':k', key, 1) == 1 then
    return true
  end
  redis.call('RPUSH', work.base .. ':w:' .. key, entry)
  redis.call('HINCRBY', work.base .. ':m', 'w', 1)
  return false
end

-- Gives the key to the next entry that waits for it.
local function release_key(work, key, now)
  local base = work.base
  if redis.call('HINCRBY', base .. ':k', key, -1) <= 0 then
    redis.call('HDEL', base .. ':k', key)
    return
  end
  local entry = redis.call('LPOP', base .. ':w:' .. key)
  if entry then
    redis.call('HINCRBY', base .. ':m', 'w', -1)
    local _, priority, _, _, not_before = struct.unpack(HEAD, entry)
    place(work, entry, priority, not_before, now)
  end
end

local function key_of(entry)
  local high, low = string.byte(entry, 29, 30)
  local length = high * 256 + low
  if length == 0 then
    return nil
  end
  return string.sub(entry, BODY, BODY + length - 1)
end

local function identity_of(entry)
  local k1, k2, i1, i2 = string.byte(entry, 29, 32)
  local from = BODY + k1 * 256 + k2
  return string.sub(entry, from, from + i1 * 256 + i2 - 1)
end

-- Whether a message that is asked for its reply has one already.
local function answered(work, entry)
  return math.floor(string.byte(entry, 33) / ASKED) % 2 == 1
    and redis.call('HEXISTS', work.tag .. ':r', identity_of(entry)) == 1
end

local function parse_lease(lease)
  return string.byte(lease, 1) - 48, string.sub(lease, 3)
end

-- The entry of a lease, taken off the pending list and out of the stream; nil: it is not held (any more).
local function take(base, lease)
  local priority, id = parse_lease(lease)
  local stream = base .. ':' .. priority
  local found = redis.call('XRANGE', stream, id, id)
  if redis.call('XACK', stream, GROUP, id) == 0 then
    return nil
  end
  if #found == 0 then -- lost by whoever tampered with the stream
    redis.call('HINCRBY', base .. ':m', 'n', -1)
    return nil
  end
  redis.call('XDEL', stream, id)
  return found[1][2][2], priority
end

-- Whether `instance` is who has a lease; nobody else's may be put back by it.
local function owns(base, lease, instance)
  local priority, id = parse_lease(lease)
  local found = redis.call('XPENDING', base .. ':' .. priority, GROUP, id, id, 1)
  return #found == 1 and found[1][2] == instance
end

-- Keeps the first reply to a message (false: there was one), and forgets some whose time is over: by the brokers' clock, not by that of Redis.
local function keep_reply(work, identity, reply, now, ttl)
  local replies, times = work.tag .. ':r', work.tag .. ':rt'
  local first = redis.call('HSETNX', replies, identity, reply) == 1
  if first then
    redis.call('ZADD', times, now + ttl, identity)
  end
  redis.call('SPUBLISH', work.tag .. ':bell', work.instance .. '|r|' .. identity)
  local over = redis.call('ZRANGEBYSCORE', times, '-inf', now, 'LIMIT', 0, 10)
  if #over > 0 then
    redis.call('HDEL', replies, unpack(over))
    redis.call('ZREM', times, unpack(over))
  end
  return first
end

local function forget(work, count, bytes)
  local left = redis.call('HINCRBY', work.base .. ':m', 'n', -count)
  if left <= 0 then
    redis.call('HSET', work.base .. ':m', 'n', 0, 'b', 0)
  else
    redis.call('HINCRBY', work.base .. ':m', 'b', -bytes)
  end
end

local function note(work, outcome, now, consumer, leases)
  redis.call('XADD', work.tag .. ':done', '*', 'q', queue_of(work.base), 'o', outcome, 't', now, 'c', consumer, 'l',
    table.concat(leases, ' '))
end

-- Remembers a counter every ten seconds, for rates.
local function sample(meta, name, total, now)
  local last = redis.call('HMGET', meta, name .. 't', name .. 's')
  if now - number(last[1]) >= 10000 then
    redis.call('HSET', meta, name .. 't0', last[1] or now, name .. 's0', last[2] or total, name .. 't', now, name .. 's', total)
  end
end

-- Reads up to `limit` of what has just become ready, as a read right behind this call would: lease and entry of each, or
-- instead of the entry its number in `numbers` (by lease).
local function take_ready(work, limit, numbers)
  local taken = {}
  for priority = 1, 3 do
    if limit > 0 and work.ready[priority] then
      local stream = work.base .. ':' .. priority
      local found = redis.pcall('XREADGROUP', 'GROUP', GROUP, work.instance, 'COUNT', limit, 'STREAMS', stream, '>')
      if found and not found.err then -- whoever reads next finds what is wrong
        local rows = found[1][2]
        for _, row in ipairs(rows) do
          local lease = priority .. ':' .. row[1]
          taken[#taken + 1] = lease
          taken[#taken + 1] = numbers[lease] or row[2][2]
        end
        if #rows < limit then
          work.ready[priority] = nil
        end
        limit = limit - #rows
      end
    end
  end
  return taken
end

-- instance, now, max depth, max bytes, dedupe, per second, burst, how many this broker takes at once, entry...
local function publish(keys, argv)
  local work = begin(keys[1], argv[1])
  local base, meta = work.base, work.base .. ':m'
  local now, first = tonumber(argv[2]), 9
  local count = #argv - first + 1
  local known = redis.call('HMGET', meta, 'n', 'b', 'p', 't')
  local depth, bytes, total = number(known[1]), number(known[2]), number(known[3])
  local max_depth, max_bytes = tonumber(argv[3]), tonumber(argv[4])
  local allowed, interval, arrival = count, 0, 0
  if argv[6] ~= '0' then
    interval = 1000 / tonumber(argv[6])
    arrival = math.max(number(known[4]), now)
    allowed = math.floor((now + tonumber(argv[7]) * interval - arrival) / interval + 0.001)
  end
  local seen, current, former = nil, nil, nil
  local identities = {}
  if argv[5] == '1' then
    for i = 1, count do
      identities[i] = identity_of(argv[first + i - 1])
    end
    seen = {}
    current = redis.call('SMISMEMBER', base .. ':d0', unpack(identities))
    former = redis.call('SMISMEMBER', base .. ':d1', unpack(identities))
  end
  local codes, added, numbers, retry, stored = {}, {}, {}, 0, 0
  for i = 1, count do
    local entry = argv[first + i - 1]
    local identity = identities[i]
    if identity and (current[i] == 1 or former[i] == 1 or seen[identity]) or answered(work, entry) then
      codes[i] = '='
    elseif stored >= allowed then
      codes[i] = 'r'
      retry = math.max(retry, math.ceil(interval))
    elseif depth >= max_depth or bytes + #entry > max_bytes then
      codes[i] = 'f'
      retry = math.max(retry, 100)
    else
      local _, priority, _, _, not_before, _, key_length = struct.unpack(HEAD, entry)
      if key_length == 0 or take_key(work, string.sub(entry, BODY, BODY + key_length - 1), entry) then
        local id = place(work, entry, priority, not_before, now)
        if id then
          numbers[priority .. ':' .. id] = i -- two streams may have the same id
        end
      end
      codes[i] = '+'
      stored, depth, bytes = stored + 1, depth + 1, bytes + #entry
      if identity then
        seen[identity] = true
        added[#added + 1] = identity
      end
    end
  end
  if #added > 0 then
    redis.call('SADD', base .. ':d0', unpack(added))
  end
  if stored > 0 then
    sample(meta, 'p', total, now)
    total = total + stored
    redis.call('HSET', meta, 'n', depth, 'b', bytes, 'p', total)
    if interval > 0 then
      redis.call('HSET', meta, 't', string.format('%.3f', arrival + stored * interval))
    end
  end
  local taken = take_ready(work, tonumber(argv[8]), numbers)
  return { table.concat(codes), retry, total, ring(work), work.due, taken }
end

-- instance, now, archive, consumer, life of a reply, sizes ('>I4' each), number of plain ones, plain lease..., then
-- lease, key, identity, reply of each of the others
local function ack(keys, argv)
  local work = begin(keys[1], argv[1])
  local base, now, archive, ttl = work.base, tonumber(argv[2]), argv[3] == '1', tonumber(argv[5])
  local sizes, plain = argv[6], tonumber(argv[7])
  local finished, gone, late, other = {}, { {}, {}, {} }, {}, {}
  local bytes, index = 0, 0
  local function settle(lease)
    local priority, id = parse_lease(lease)
    index = index + 1
    if redis.call('XACK', base .. ':' .. priority, GROUP, id) == 0 then
      late[#late + 1] = lease
      return false
    end
    bytes = bytes + struct.unpack('>I4', sizes, index * 4 - 3)
    finished[#finished + 1] = lease
    gone[priority][#gone[priority] + 1] = id
    return true
  end
  for i = 8, 7 + plain do
    settle(argv[i])
  end
  for i = 8 + plain, #argv, 4 do
    if settle(argv[i]) then
      if argv[i + 3] ~= '' then
        if not keep_reply(work, argv[i + 2], argv[i + 3], now, ttl) then
          other[#other + 1] = argv[i]
        end
      end
      if argv[i + 1] ~= '' then
        release_key(work, argv[i + 1], now)
      end
    end
  end
  if #finished > 0 then
    if archive then
      note(work, 2, now, argv[4], finished)
    else
      for priority = 1, 3 do
        if #gone[priority] > 0 then
          redis.call('XDEL', base .. ':' .. priority, unpack(gone[priority]))
        end
      end
    end
    forget(work, #finished, bytes)
    local acked = redis.call('HINCRBY', base .. ':m', 'a', #finished)
    sample(base .. ':m', 'a', acked - #finished, now)
  end
  return { #finished, ring(work), work.due, late, other }
end

-- An entry with another attempt and due time.
local function again(entry, attempt, due)
  return table.concat({
    string.sub(entry, 1, 2),
    struct.pack('>H', math.min(attempt, 65535)),
    string.sub(entry, 5, 12),
    struct.pack('>I8', due),
    string.sub(entry, 21),
  })
end

-- instance, now, then lease, attempt, due of each
local function retry(keys, argv)
  local work = begin(keys[1], argv[1])
  local now, done = tonumber(argv[2]), 0
  for i = 3, #argv, 3 do
    if owns(work.base, argv[i], work.instance) then
      local entry, priority = take(work.base, argv[i])
      if entry then
        local due = tonumber(argv[i + 2])
        place(work, again(entry, tonumber(argv[i + 1]), due), priority, due, now)
        done = done + 1
      end
    end
  end
  return { done, ring(work), work.due }
end

local function bury(work, entry, reason, message, now, block)
  local key = key_of(entry)
  local holds = key and block
  redis.call('XADD', work.base .. ':x', '*', 'e', entry, 'r', reason, 'm', message, 't', now, 'k', holds and '1' or '0')
  if key and not block then
    release_key(work, key, now)
  end
  forget(work, 1, #entry)
end

-- instance, now, life of a reply, whether a dead message blocks its key, then lease, reason, error, identity, reply of each
local function kill(keys, argv)
  local work = begin(keys[1], argv[1])
  local now, done = tonumber(argv[2]), 0
  -- What a function did before an error stays done: all is checked first.
  for i = 5, #argv, 5 do
    if argv[i + 1] == '' then
      return redis.error_reply('a dead letter needs a reason')
    end
  end
  for i = 5, #argv, 5 do
    if owns(work.base, argv[i], work.instance) then
      local entry = take(work.base, argv[i])
      if entry then
        bury(work, entry, argv[i + 1], argv[i + 2], now, argv[4] == '1')
        if argv[i + 4] ~= '' then
          keep_reply(work, argv[i + 3], argv[i + 4], now, tonumber(argv[3]))
        end
        done = done + 1
      end
    end
  end
  return { done, ring(work), work.due }
end

-- Moves up to `limit` delayed entries of a queue into its streams; returns how many.
local function wake(work, until_score, limit)
  local base = work.base
  local members = redis.call('ZRANGEBYSCORE', base .. ':z', '-inf', until_score, 'LIMIT', 0, limit)
  if #members > 0 then
    local entries = redis.call('HMGET', base .. ':h', unpack(members))
    for i = 1, #members do
      if entries[i] then
        place(work, entries[i], string.byte(entries[i], 2), 0, 0)
      end
    end
    redis.call('ZREM', base .. ':z', unpack(members))
    redis.call('HDEL', base .. ':h', unpack(members))
  end
  local first = redis.call('ZRANGE', base .. ':z', 0, 0, 'WITHSCORES')
  if #first > 0 then
    redis.call('ZADD', work.tag .. ':z', first[2], queue_of(base))
  else
    redis.call('ZREM', work.tag .. ':z', queue_of(base))
  end
  return #members
end

-- KEYS[1] is {tag}:z. instance, now, limit
local function due(keys, argv)
  local tag, left = tag_of(keys[1]), tonumber(argv[3])
  local moved = {}
  for _, queue in ipairs(redis.call('ZRANGEBYSCORE', keys[1], '-inf', argv[2], 'LIMIT', 0, left)) do
    local work = begin(tag .. ':q:' .. queue, argv[1])
    left = left - wake(work, argv[2], left)
    moved[#moved + 1] = queue
    moved[#moved + 1] = ring(work)
    if left <= 0 then
      break
    end
  end
  local first = redis.call('ZRANGE', keys[1], 0, 0, 'WITHSCORES')
  return { moved, first[2] or '0' }
end

local function declare(keys)
  for priority = 1, 3 do
    local answer = redis.pcall('XGROUP', 'CREATE', keys[1] .. ':' .. priority, GROUP, '0', 'MKSTREAM')
    if type(answer) == 'table' and answer.err and not string.find(answer.err, 'BUSYGROUP') then
      return answer
    end
  end
  return redis.status_reply('OK')
end

-- instance, now, dead instance, limit, max attempts, whether a dead message blocks its key
local function takeover(keys, argv)
  local work = begin(keys[1], argv[1])
  local base, now, dead = work.base, tonumber(argv[2]), argv[3]
  local moved, left = 0, false
  for priority = 1, 3 do
    local stream = base .. ':' .. priority
    local found = redis.call('XPENDING', stream, GROUP, '-', '+', argv[4], dead)
    for _, one in ipairs(found) do
      local entry = take(base, priority .. ':' .. one[1])
      if entry then
        local _, _, attempt = struct.unpack(HEAD, entry)
        if attempt >= tonumber(argv[5]) then
          bury(work, entry, 'LEASE_EXPIRED', 'the broker that had delivered it died', now, argv[6] == '1')
        else
          place(work, again(entry, attempt + 1, 0), priority, 0, now)
        end
        moved = moved + 1
      end
    end
    if #found >= tonumber(argv[4]) then
      left = true
    else
      redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, dead)
    end
  end
  return { moved, left and 1 or 0, ring(work) }
end

-- instance, lease...: those still held by whomever are `instance`'s now; their entries, false for the lost ones
local function claim(keys, argv)
  local base, entries = keys[1], {}
  for i = 2, #argv do
    local priority, id = parse_lease(argv[i])
    local stream = base .. ':' .. priority
    local found = redis.call('XRANGE', stream, id, id)
    if #found == 1 and #redis.call('XPENDING', stream, GROUP, id, id, 1) == 1 then
      redis.call('XCLAIM', stream, GROUP, argv[1], 0, id, 'JUSTID')
      entries[#entries + 1] = found[1][2][2]
    else
      entries[#entries + 1] = false
    end
  end
  return entries
end

-- instance, now, archive, limit: takes what nobody has in hand; returns how many. Call it until it returns 0.
local function purge(keys, argv)
  local work = begin(keys[1], argv[1])
  local base, limit = work.base, tonumber(argv[4])
  wake(work, '+inf', limit)
  local count, bytes = 0, 0
  for priority = 1, 3 do
    local stream = base .. ':' .. priority
    local found = redis.call('XREADGROUP', 'GROUP', GROUP, 'purge', 'COUNT', limit, 'STREAMS', stream, '>')
    local leases = {}
    for _, one in ipairs(found and found[1] and found[1][2] or {}) do
      local entry = one[2][2]
      redis.call('XACK', stream, GROUP, one[1])
      if argv[3] ~= '1' then
        redis.call('XDEL', stream, one[1])
      end
      leases[#leases + 1] = priority .. ':' .. one[1]
      count, bytes = count + 1, bytes + #entry
      local key = key_of(entry)
      if key then
        release_key(work, key, math.huge)
      end
    end
    if #leases > 0 and argv[3] == '1' then
      note(work, 5, argv[2], '', leases)
    end
  end
  if count > 0 then
    forget(work, count, bytes)
  end
  return count
end

-- Removes all keys of a queue.
local function delete(keys)
  local base = keys[1]
  for _, key in ipairs(redis.call('HKEYS', base .. ':k')) do
    redis.call('UNLINK', base .. ':w:' .. key)
  end
  local depth = number(redis.call('HGET', base .. ':m', 'n'))
  for _, part in ipairs({ '1', '2', '3', 'm', 'd0', 'd1', 'k', 'x', 'z', 'h' }) do
    redis.call('UNLINK', base .. ':' .. part)
  end
  redis.call('ZREM', tag_of(base) .. ':z', queue_of(base))
  return depth
end

-- instance, now, dead letter id...: back into the queue as first attempts
local function requeue(keys, argv)
  local work = begin(keys[1], argv[1])
  local base, now, done = work.base, tonumber(argv[2]), 0
  for i = 3, #argv do
    local found = redis.call('XRANGE', base .. ':x', argv[i], argv[i])
    if #found == 1 then
      local fields = found[1][2]
      local entry, holds = fields[2], fields[10] == '1'
      -- It would expire again at once: a requeued message has no expiry.
      entry = again(entry, 1, 0)
      entry = string.sub(entry, 1, 20) .. struct.pack('>I8', 0) .. string.sub(entry, 29)
      redis.call('XDEL', base .. ':x', argv[i])
      redis.call('HINCRBY', base .. ':m', 'n', 1)
      redis.call('HINCRBY', base .. ':m', 'b', #entry)
      local key = key_of(entry)
      if not key or holds or take_key(work, key, entry) then
        place(work, entry, string.byte(entry, 2), 0, now)
      end
      done = done + 1
    end
  end
  return { done, ring(work), work.due }
end

-- instance, now, archive, dead letter id...
local function discard(keys, argv)
  local work = begin(keys[1], argv[1])
  local base, now, done = work.base, tonumber(argv[2]), 0
  for i = 4, #argv do
    local found = redis.call('XRANGE', base .. ':x', argv[i], argv[i])
    if #found == 1 then
      local fields = found[1][2]
      redis.call('XDEL', base .. ':x', argv[i])
      if argv[3] == '1' then
        redis.call('XADD', work.tag .. ':done', '*', 'q', queue_of(base), 'o', 4, 't', now, 'c', '', 'e', fields[2])
      end
      if fields[10] == '1' then
        release_key(work, key_of(fields[2]), now)
      end
      done = done + 1
    end
  end
  return { done, ring(work), work.due }
end

-- dead letter id, entry: its new id; false: there is none
local function edit(keys, argv)
  local stream = keys[1] .. ':x'
  local found = redis.call('XRANGE', stream, argv[1], argv[1])
  if #found == 0 then
    return false
  end
  local fields = found[1][2]
  redis.call('XDEL', stream, argv[1])
  return redis.call('XADD', stream, '*', 'e', argv[2], 'r', fields[4], 'm', fields[6], 't', fields[8], 'k', fields[10])
end

-- generation: begins the next dedupe window, if this is still the one
local function rotate(keys, argv)
  local base = keys[1]
  local generation = number(redis.call('HGET', base .. ':m', 'g'))
  if generation ~= tonumber(argv[1]) then
    return generation
  end
  redis.call('UNLINK', base .. ':d1')
  if redis.call('EXISTS', base .. ':d0') == 1 then
    redis.call('RENAME', base .. ':d0', base .. ':d1')
  end
  return redis.call('HINCRBY', base .. ':m', 'g', 1)
end

-- KEYS[1] is the sender's. now, per second, burst, wanted: granted, ms until the next
local function limit(keys, argv)
  local now, interval, burst = tonumber(argv[1]), 1000 / tonumber(argv[2]), tonumber(argv[3])
  local arrival = math.max(number(redis.call('GET', keys[1])), now)
  local free = math.floor((now + burst * interval - arrival) / interval + 0.001)
  local granted = math.max(0, math.min(free, tonumber(argv[4])))
  if granted > 0 then
    arrival = arrival + granted * interval
    redis.call('SET', keys[1], string.format('%.3f', arrival), 'PX', math.ceil(burst * interval) + 60000)
  end
  return { granted, math.max(0, math.ceil(arrival + interval - burst * interval - now)) }
end

local function status(keys)
  local base = keys[1]
  local meta = redis.call('HMGET', base .. ':m', 'n', 'b', 'p', 'a', 'w', 'pt', 'ps', 'pt0', 'ps0', 'at', 'as', 'at0', 'as0')
  local pending, oldest = 0, 0
  for priority = 1, 3 do
    local stream = base .. ':' .. priority
    local groups = redis.pcall('XINFO', 'GROUPS', stream)
    if not groups.err and groups[1] then
      local fields = {}
      for i = 1, #groups[1], 2 do
        fields[groups[1][i]] = groups[1][i + 1]
      end
      pending = pending + fields['pending']
      local first = redis.call('XRANGE', stream, '(' .. fields['last-delivered-id'], '+', 'COUNT', 1)
      if #first == 1 then
        local _, _, _, published = struct.unpack(HEAD, first[1][2][2])
        if oldest == 0 or published < oldest then
          oldest = published
        end
      end
    end
  end
  return {
    number(meta[1]), number(meta[2]), number(meta[3]), number(meta[4]), number(meta[5]),
    redis.call('ZCARD', base .. ':z'), pending, redis.call('XLEN', base .. ':x'), oldest,
    number(meta[6]), number(meta[7]), number(meta[8]), number(meta[9]),
    number(meta[10]), number(meta[11]), number(meta[12]), number(meta[13]),
  }
end

redis.register_function('weft_publish', publish)
redis.register_function('weft_ack', ack)
redis.register_function('weft_retry', retry)
redis.register_function('weft_kill', kill)
redis.register_function('weft_due', due)
redis.register_function('weft_declare', declare)
redis.register_function('weft_takeover', takeover)
redis.register_function('weft_claim', claim)
redis.register_function('weft_purge', purge)
redis.register_function('weft_delete', delete)
redis.register_function('weft_requeue', requeue)
redis.register_function('weft_discard', discard)
redis.register_function('weft_edit', edit)
redis.register_function('weft_rotate', rotate)
redis.register_function('weft_limit', limit)
redis.register_function('weft_status', status)
