"""What all scripts of ownership share, as Lua: names of keys, numbers as text, and the steps that changes are made of.

Names of keys are those of `contract.ownership`; besides them there are:
- `node_cameras:<node>`: set of the cameras that a node owns.  It is written with the status, so an agent finds its own
  cameras without reading everyone's, and `container_load` is always its size.
- `node_alive`: sorted set of nodes that agents of strategy `claim` say are alive, scored by until when (ms).
- `registry_leader` and `registry_leader_token`: who leads, until it expires, and the last token given.

The easy mistake: Lua's numbers are exact to 2^53 only and epochs go to 2^63, so epochs and times stay decimal text
here, compared by length and letters.
"""

from __future__ import annotations

from nodeagent.contract.ownership import CHANNEL, LOAD_HASH, LOCK_MS, LOCK_PREFIX, POOL_LIST, STATUS_HASH

#: Set per node of the cameras that it owns.
CAMERAS_PREFIX = "node_cameras:"
#: Sorted set of nodes that take cameras from the pool, by the time (ms) until which they count as alive.
ALIVE_SET = "node_alive"
#: Text of the leader's `Term`; expires.
LEADER_KEY = "registry_leader"
#: The last token that a leader got.
TOKEN_KEY = "registry_leader_token"  # noqa: S105  the name of a key

_NAMES = f"""
local STATUS, POOL, LOAD, LOCK = '{STATUS_HASH}', '{POOL_LIST}', '{LOAD_HASH}', '{LOCK_PREFIX}'
local CAMERAS, ALIVE, LEADER, TOKEN = '{CAMERAS_PREFIX}', '{ALIVE_SET}', '{LEADER_KEY}', '{TOKEN_KEY}'
local CHANNEL, LOCK_MS, LIMIT = '{CHANNEL}', {LOCK_MS}, '{2**63}'
"""

_NUMBERS = r"""
local function later(a, b)
  if #a ~= #b then return #a > #b end
  return a > b
end
local function highest(numbers)
  local best = '0'
  for _, number in ipairs(numbers) do if later(number, best) then best = number end end
  return best
end
local function next_after(number)
  local head, digit, nines = number:match('^(%d-)([0-8]?)(9*)$')
  local grown = digit == '' and '1' or string.format('%d', digit + 1)
  return head .. grown .. string.rep('0', #nines)
end
local function now_ms()
  local now = redis.call('TIME')
  return string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
end
local function epoch_of(owner) return owner:match('/(%d+)$') or '0' end
"""

_STATE = r"""
local function leads(term) return redis.call('GET', LEADER) == term end
local function holder(camera) return redis.call('GET', LOCK .. camera) or '' end
local function hold(camera, owner) redis.call('SET', LOCK .. camera, owner, 'PX', LOCK_MS) end

local function read(camera)
  local text = redis.call('HGET', STATUS, camera) or ''
  local was = {phase = text:match('"phase":%s*"(%a+)"') or '', node = '', owner = '', epoch = '0'}
  local node = text:match('"node_id":%s*"([^"]*)"')
  local life = text:match('"incarnation":%s*"(%x+)"')
  local epoch = text:match('"epoch":%s*(%d+)')
  if node and life and epoch then
    was.node, was.owner, was.epoch = node, node .. '/' .. life .. '/' .. epoch, epoch
  end
  return was
end
local function write(camera, phase, owner, now)
  local node, life, epoch = owner:match('^([^/]+)/(%x+)/(%d+)$')
  local who = 'null'
  if node then who = '{"node_id":"' .. node .. '","incarnation":"' .. life .. '","epoch":' .. epoch .. '}' end
  local status = '{"v":1,"phase":"' .. phase .. '","owner":' .. who .. ',"since_ms":' .. now .. '}'
  redis.call('HSET', STATUS, camera, status)
end
local function tell(told, camera, node, epoch)
  redis.call('PUBLISH', CHANNEL, '{"v":1,"told":"' .. told .. '","camera_id":"' .. camera ..
    '","node_id":"' .. node .. '","epoch":' .. epoch .. ',"version":0}')
end

local function count(node)
  local owns = redis.call('SCARD', CAMERAS .. node)
  if owns > 0 then redis.call('HSET', LOAD, node, owns) else redis.call('HDEL', LOAD, node) end
end
local function take_from(was, camera)
  if was.phase == 'owned' then
    redis.call('SREM', CAMERAS .. was.node, camera)
    count(was.node)
  end
end
local function give_to(owner, camera)
  local node = owner:match('^([^/]+)/')
  redis.call('SADD', CAMERAS .. node, camera)
  count(node)
  redis.call('LREM', POOL, 0, camera)
end
local function to_pool(was, camera, now)
  take_from(was, camera)
  redis.call('LREM', POOL, 0, camera)
  redis.call('RPUSH', POOL, camera)
  write(camera, 'pooled', was.owner, now)
end

local function own(camera, node, life, known, was, held)
  local now, held_epoch = now_ms(), epoch_of(held)
  local epoch = next_after(highest({known, was.epoch, held_epoch, now}))
  if not later(LIMIT, epoch) then return {'spent'} end
  local owner = node .. '/' .. life .. '/' .. epoch
  take_from(was, camera)
  give_to(owner, camera)
  write(camera, 'owned', owner, now)
  hold(camera, owner)
  tell('granted', camera, node, epoch)
  return {'granted', owner}
end
local function owns_already(node, life, known, was, held)
  return was.phase == 'owned' and was.owner == node .. '/' .. life .. '/' .. was.epoch
    and not later(known, was.epoch) and not later(epoch_of(held), was.epoch)
end
"""

#: Comes before every script.
PRELUDE = _NAMES + _NUMBERS + _STATE
