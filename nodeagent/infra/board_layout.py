"""Where everything lies in the status board's file.  Pure.

The file is one header page and `cells` cells of equal size.  All numbers are native 64-bit words; enums are stored as
their position in the enum, so the header carries a fingerprint of those tables: a program with other tables refuses the
board instead of showing the wrong names.
"""

from __future__ import annotations

import zlib

from nodeagent.contract.report import COUNTERS, Kind, Phase
from nodeagent.contract.states import State

#: First word of the file: "NODEBRD1", little endian.
MAGIC = int.from_bytes(b"NODEBRD1", "little")
#: Bytes of the header: one page, so that cells never share a page with it.
HEADER_BYTES = 4096
#: Bytes of one cell: its words, its name and its detail, rounded up to a power of two.
CELL_BYTES = 1024
WORD_BYTES = 8
CELL_WORDS = CELL_BYTES // WORD_BYTES

# Words of the header.
H_MAGIC, H_TABLES, H_CELLS, H_AGENT_PID, H_STARTED_NS, H_NODE_LEN = range(6)
#: Where the node's id stands in the header; ids have at most 63 bytes.
NODE_AT = 128
NODE_BYTES = 63

# Words of a cell that the supervisor writes, under the lock word W_OWNER_LOCK.
W_OWNER_LOCK, W_USED, W_KIND, W_PID, W_PHASE, W_RESTARTS, W_STARTED_NS, W_NAME_LEN = range(8)
# Words of a cell that the worker writes: state, since and detail under W_STATE_LOCK, the others are single stores.
W_STATE_LOCK, W_STATE, W_SINCE_NS, W_DETAIL_LEN, W_READY, W_BEAT_NS, W_ALLOW_MS = range(8, 15)
#: First counter's word, and how many fit before the texts.
W_COUNTERS = 16
COUNTERS_MAX = 48

#: Where a cell's name stands: `kind:` and an id, at most 73 bytes today.
NAME_AT = 512
NAME_BYTES = 128
#: Where a cell's detail stands; longer ones are cut at a character's end.
DETAIL_AT = 640
DETAIL_BYTES = 200

KINDS = tuple(Kind)
PHASES = tuple(Phase)
STATES = tuple(State)
#: Word of every counter, by kind and name.
COUNTER_WORD = {kind: {name: W_COUNTERS + i for i, name in enumerate(names)} for kind, names in COUNTERS.items()}

#: Changes when a table that gives the stored numbers their meaning changes.
TABLES = zlib.crc32(repr((KINDS, PHASES, STATES, COUNTER_WORD, CELL_BYTES)).encode())


def file_bytes(cells: int) -> int:
    """Size of a board of so many cells."""
    return HEADER_BYTES + cells * CELL_BYTES


def cut_text(text: str, limit: int) -> bytes:
    """UTF-8 bytes of `text`, at most `limit`, never ending inside a character."""
    return text.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore").encode()
