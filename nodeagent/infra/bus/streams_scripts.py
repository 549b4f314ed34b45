"""What the Streams adapter does inside Redis, as Lua: each script is one atomic step.

A queue is a stream with one consumer group.  Fields of an entry: `k` routing key, `h` headers as JSON, `b` body,
`a` the attempt that its first delivery is, `r` why it is in a dead-letter queue.  A settled entry is deleted in the
same step, so a stream holds exactly what is waiting or taken.

Everything that settles checks first that the entry is still taken by this consumer: one that was taken over belongs to
somebody else by now.
"""

from __future__ import annotations

#: Consumer group of every queue.
GROUP = "workers"
#: Returned by PUBLISH and DEAD when the target holds its limit already.
FULL = b"FULL"

_OWNS = """
local function owns(queue, group, consumer, id)
  local row = redis.pcall('XPENDING', queue, group, id, id, 1, consumer)
  return row.err == nil and #row > 0
end
local function settle(queue, group, id)
  redis.call('XACK', queue, group, id)
  redis.call('XDEL', queue, id)
end
"""

#: KEYS: stream.  ARGV: limit, then the fields.
PUBLISH = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 'FULL' end
return redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
"""

#: KEYS: stream.  ARGV: group, consumer, id.  Returns 1 when it was ours.
ACK = (
    _OWNS
    + """
if not owns(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
settle(KEYS[1], ARGV[1], ARGV[3])
return 1
"""
)

#: KEYS: stream.  ARGV: group, consumer, id, fields.  Puts a copy at the end, where any consumer reads it at once.
NACK = (
    _OWNS
    + """
if not owns(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 4))
settle(KEYS[1], ARGV[1], ARGV[3])
return 1
"""
)

#: KEYS: stream, waiting set, the copy's hash.  ARGV: group, consumer, id, delay in ms, fields.
LATER = (
    _OWNS
    + """
if not owns(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
local now = redis.call('TIME')
redis.call('HSET', KEYS[3], 'queue', KEYS[1], unpack(ARGV, 5))
redis.call('ZADD', KEYS[2], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[4], KEYS[3])
settle(KEYS[1], ARGV[1], ARGV[3])
return 1
"""
)

#: KEYS: stream, dead-letter stream.  ARGV: group, consumer, id, limit, fields.
DEAD = (
    _OWNS
    + """
if not owns(KEYS[1], ARGV[1], ARGV[2], ARGV[3]) then return 0 end
if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[4]) then return 'FULL' end
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 5))
settle(KEYS[1], ARGV[1], ARGV[3])
return 1
"""
)

#: KEYS: waiting set.  ARGV: how many at most.  Moves what is due back to its stream; returns how many.
DUE = """
local now = redis.call('TIME')
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] * 1000 + math.floor(now[2] / 1000), 'LIMIT', 0, ARGV[1])
for _, copy in ipairs(due) do
  local stored = redis.call('HGETALL', copy)
  local queue, fields = nil, {}
  for i = 1, #stored, 2 do
    if stored[i] == 'queue' then
      queue = stored[i + 1]
    else
      fields[#fields + 1] = stored[i]
      fields[#fields + 1] = stored[i + 1]
    end
  end
  if queue then redis.call('XADD', queue, '*', unpack(fields)) end
  redis.call('ZREM', KEYS[1], copy)
  redis.call('DEL', copy)
end
return #due
"""

#: KEYS: stream.  ARGV: group, consumer, ids in hand.  Sets their idle time to 0; returns those that are still ours.
#: Only what the worker has in hand: an entry whose delivery was cut off on its way here must grow idle and come again.
REFRESH = """
local rows = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])
if rows.err then return {} end
local ours, kept = {}, {}
for _, row in ipairs(rows) do ours[row[1]] = true end
for i = 3, #ARGV do
  if ours[ARGV[i]] then kept[#kept + 1] = ARGV[i] end
end
if #kept == 0 then return kept end
local command = {'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0}
for _, id in ipairs(kept) do command[#command + 1] = id end
command[#command + 1] = 'JUSTID'
redis.call(unpack(command))
return kept
"""

#: KEYS: stream.  ARGV: group, consumer, idle ms, cursor, how many.  Returns the next cursor and what was taken over,
#: each as {id, fields, deliveries}.
CLAIM = """
local got = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local taken = {}
for _, entry in ipairs(got[2]) do
  if entry and entry[2] then
    local row = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
    taken[#taken + 1] = {entry[1], entry[2], row[1] and row[1][4] or 1}
  end
end
return {got[1], taken}
"""

#: KEYS: stream.  ARGV: group, idle ms.  Forgets consumers that hold nothing and have not been seen for so long.
SWEEP = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about['pending'] == 0 and about['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about['name'])
  end
end
return 1
"""
