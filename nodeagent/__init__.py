"""nodeagent: one daemon per server that turns cameras into delivered alarms.

Rooms, lowest first: `contract` (pure), `infra`, `ring`, the stages `capture`, `inference`, `judge`, `alarm`,
then `supervisor` and `cli`.  `tests/architecture` enforces who may import whom.
"""

__version__ = "0.1.0"
