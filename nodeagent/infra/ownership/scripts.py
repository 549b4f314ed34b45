"""What live ownership does inside Redis, as Lua: each script is one atomic step, so no kill -9 can part its writes.

Scripts work out names of keys from camera ids, so they are for one server or Sentinel, not for Redis Cluster.
"""

from __future__ import annotations

from nodeagent.infra.ownership.prelude import PRELUDE

#: ARGV: term, camera, node, incarnation, highest epoch known.  Returns {granted, owner}, {fenced} or {spent}.
GRANT = (
    PRELUDE
    + """
local term, camera, node, life, known = unpack(ARGV)
if not leads(term) then return {'fenced'} end
local was, held = read(camera), holder(camera)
if owns_already(node, life, known, was, held) then
  redis.call('LREM', POOL, 0, camera)
  hold(camera, was.owner)
  return {'granted', was.owner}
end
return own(camera, node, life, known, was, held)
"""
)

#: ARGV: camera, node, incarnation, highest epoch known, how many more than the lightest is allowed.  Returns
#: {granted, owner}, {held, owner}, {absent} (not in the pool), {heavier} (a lighter node's turn) or {spent}.
#:
#: A node may take while it is below the level to which the pool can fill all live nodes, or while no live node is
#: lighter: so all fill up at once, and their counts differ by one at most in the end.
CLAIM = (
    PRELUDE
    + r"""
local function level(loads, pooled)
  table.sort(loads)
  local sum = 0
  for i, load in ipairs(loads) do
    sum = sum + load
    local mean = math.floor((sum + pooled) / i)
    if not loads[i + 1] or loads[i + 1] >= mean then return mean end
  end
end
local function may_take(node, ahead)
  local load = tonumber(redis.call('HGET', LOAD, node) or 0)
  local loads, lightest = {load}, load
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', ALIVE, '(' .. now_ms(), '+inf')) do
    if other ~= node then
      local theirs = tonumber(redis.call('HGET', LOAD, other) or 0)
      loads[#loads + 1] = theirs
      lightest = math.min(lightest, theirs)
    end
  end
  return load <= lightest + ahead or load < level(loads, redis.call('LLEN', POOL))
end

local camera, node, life, known, ahead = unpack(ARGV)
local was, held = read(camera), holder(camera)
if owns_already(node, life, known, was, held) then
  redis.call('LREM', POOL, 0, camera)
  hold(camera, was.owner)
  return {'granted', was.owner}
end
if held ~= '' then
  -- Somebody put a camera into the pool that is owned already.
  if was.owner == held then redis.call('LREM', POOL, 0, camera) end
  return {'held', held}
end
if not redis.call('LPOS', POOL, camera) then return {'absent'} end
if not may_take(node, tonumber(ahead)) then return {'heavier'} end
return own(camera, node, life, known, was, held)
"""
)

#: ARGV: term (empty: of the owner's own wish), camera, the owner from whom it is taken, and 1 to take it only when its
#: key has run out.  Returns done, fenced or other.
TAKE_BACK = (
    PRELUDE
    + """
local term, camera, owner, unheld = unpack(ARGV)
if term ~= '' and not leads(term) then return 'fenced' end
local was = read(camera)
if was.owner ~= owner then return 'other' end
if was.phase == 'pooled' then return 'done' end
local held = holder(camera)
if later(epoch_of(held), was.epoch) or (unheld == '1' and held ~= '') then return 'other' end
redis.call('DEL', LOCK .. camera)
to_pool(was, camera, now_ms())
if term ~= '' then tell('stop', camera, was.node, was.epoch) end
tell('pooled', camera, '', '0')
return 'done'
"""
)

#: ARGV: term, cameras.  Returns how many were put, or -1 for a term that is over.
OFFER = (
    PRELUDE
    + """
if not leads(ARGV[1]) then return -1 end
local put, now = 0, now_ms()
for i = 2, #ARGV do
  local camera = ARGV[i]
  local was = read(camera)
  if was.phase == '' and holder(camera) == '' then
    to_pool(was, camera, now)
    tell('pooled', camera, '', '0')
    put = put + 1
  end
end
return put
"""
)

#: ARGV: term, camera.  Returns done or fenced.
FORGET = (
    PRELUDE
    + """
local term, camera = unpack(ARGV)
if not leads(term) then return 'fenced' end
local was = read(camera)
local epoch = highest({was.epoch, epoch_of(holder(camera))})
take_from(was, camera)
redis.call('LREM', POOL, 0, camera)
redis.call('DEL', LOCK .. camera)
redis.call('HDEL', STATUS, camera)
if epoch ~= '0' then tell('stop', camera, was.node, epoch) end
return 'done'
"""
)

#: ARGV: term (empty: an owner's own memory), then camera, phase and owner (or nothing) of each.  Returns how many
#: changed, or -1 for a term that is over.  A key that is held by an epoch that is not lower is a memory as well.
REBUILD = (
    PRELUDE
    + """
if ARGV[1] ~= '' and not leads(ARGV[1]) then return -1 end
local changed, now = 0, now_ms()
for i = 2, #ARGV, 3 do
  local camera, phase, owner = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local was, held = read(camera), holder(camera)
  if held ~= '' and not later(highest({epoch_of(owner), was.epoch}), epoch_of(held)) then
    phase, owner = 'owned', held
  end
  if was.phase == '' or later(epoch_of(owner), was.epoch) then
    take_from(was, camera)
    if phase == 'owned' then
      give_to(owner, camera)
      write(camera, phase, owner, now)
      hold(camera, owner)
    else
      redis.call('DEL', LOCK .. camera)
      to_pool({phase = '', owner = owner}, camera, now)
    end
    changed = changed + 1
  elseif was.phase == 'owned' and was.owner == owner and phase == 'owned' and held ~= owner then
    hold(camera, owner)
    changed = changed + 1
  end
end
return changed
"""
)

#: ARGV: term.  Counts cameras of nodes anew, and leaves every camera once in the pool, or out of it.  Returns 1, or -1
#: for a term that is over.  Takes a microsecond or two per camera.
TIDY = (
    PRELUDE
    + r"""
if not leads(ARGV[1]) then return -1 end
for _, node in ipairs(redis.call('HKEYS', LOAD)) do redis.call('DEL', CAMERAS .. node) end
redis.call('DEL', LOAD)
local nodes, emptied, pooled, kept = {}, {}, {}, {}
for _, camera in ipairs(redis.call('HKEYS', STATUS)) do
  local was = read(camera)
  if was.phase == 'owned' then
    if not emptied[was.node] then
      redis.call('DEL', CAMERAS .. was.node)
      emptied[was.node], nodes[#nodes + 1] = true, was.node
    end
    redis.call('SADD', CAMERAS .. was.node, camera)
    pooled[camera] = false
  elseif was.phase == 'pooled' then
    pooled[camera] = true
  end
end
for _, node in ipairs(nodes) do count(node) end
for _, camera in ipairs(redis.call('LRANGE', POOL, 0, -1)) do
  if pooled[camera] ~= false then
    kept[#kept + 1] = camera
    pooled[camera] = false
  end
end
for camera, waits in pairs(pooled) do if waits then kept[#kept + 1] = camera end end
redis.call('DEL', POOL)
for _, camera in ipairs(kept) do redis.call('RPUSH', POOL, camera) end
return 1
"""
)

#: ARGV: camera and owner of each.  Returns standing and owner (or nothing) of each.
RENEW = (
    PRELUDE
    + """
local found = {}
for i = 1, #ARGV, 2 do
  local camera, owner = ARGV[i], ARGV[i + 1]
  local held, standing, who = holder(camera), 'held', ARGV[i + 1]
  if held == owner then
    redis.call('PEXPIRE', LOCK .. camera, LOCK_MS)
  else
    local was = read(camera)
    if was.phase == 'owned' and was.owner == owner and not later(epoch_of(held), was.epoch) then
      hold(camera, owner)
    else
      who = held ~= '' and held or was.owner
      standing = (held ~= '' or was.phase == 'owned') and 'taken' or 'pooled'
      if later(epoch_of(owner), highest({epoch_of(held), was.epoch})) then standing = 'unknown' end
    end
  end
  found[#found + 1], found[#found + 2] = standing, who
end
return found
"""
)

#: ARGV: node, incarnation.  Returns camera and status of each camera of the node.
OWNED_BY = (
    PRELUDE
    + """
local found = {}
for _, camera in ipairs(redis.call('SMEMBERS', CAMERAS .. ARGV[1])) do
  local was = read(camera)
  if was.phase == 'owned' and was.owner == ARGV[1] .. '/' .. ARGV[2] .. '/' .. was.epoch then
    found[#found + 1], found[#found + 2] = camera, was.owner
  end
end
return found
"""
)

#: ARGV: node, how long it counts as alive (ms; 0: no longer).  Forgets nodes that have been gone for a while.
ALIVE = (
    PRELUDE
    + """
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', ALIVE, '-inf', now)
if ARGV[2] == '0' then return redis.call('ZREM', ALIVE, ARGV[1]) end
return redis.call('ZADD', ALIVE, now + ARGV[2], ARGV[1])
"""
)

#: ARGV: registry, highest token known, how long its lock lives (ms).  Returns the token, or nothing.
LEAD = (
    PRELUDE
    + """
local registry, known, ttl = unpack(ARGV)
local leader = redis.call('GET', LEADER)
if leader then
  local name, token = leader:match('^(.*)/(%d+)$')
  if name ~= registry then return false end
  if not later(known, token) then
    redis.call('PEXPIRE', LEADER, ttl)
    return token
  end
end
local token = next_after(highest({known, redis.call('GET', TOKEN) or '0', now_ms()}))
redis.call('SET', TOKEN, token)
redis.call('SET', LEADER, registry .. '/' .. token, 'PX', ttl)
return token
"""
)

#: ARGV: term, token, how long its lock lives (ms).  Returns 1, or 0 for a term that is over.
LEAD_ON = (
    PRELUDE
    + """
local term, token, ttl = unpack(ARGV)
local leader = redis.call('GET', LEADER)
if leader and leader ~= term then return 0 end
-- It ran out, and nobody has led since: the term goes on.
if not leader and redis.call('GET', TOKEN) ~= token then return 0 end
redis.call('SET', LEADER, term, 'PX', ttl)
return 1
"""
)

#: ARGV: term.  The token moves on, or the term could be taken up again as one that only ran out.
RESIGN = (
    PRELUDE
    + """
if leads(ARGV[1]) then
  redis.call('DEL', LEADER)
  redis.call('INCR', TOKEN)
end
return 1
"""
)
