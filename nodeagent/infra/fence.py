"""A memory fence, for what processes hand each other through shared memory without a lock.

Python has no word for it, so it is made of what every lock of it does.  Giving a lock back is a release: whatever was
loaded or stored before is done before it.  Taking a lock is an acquire: whatever comes later is done after it.  And a
processor never does a later acquire before an earlier release, so giving back and then taking is a fence for loads and
stores.  The easy mistake is the other order: between taking and giving back, the neighbours on both sides may enter,
and change places inside.

x86-64 keeps loads among loads and stores among stores in order anyway; there the fence only makes sure.  On aarch64 it
is what the promises of the ring and the board stand on.  docs/adr/0002-ring.md says more.
"""

from __future__ import annotations

from _thread import allocate_lock


def fence() -> None:
    """Have every load and store before this call done before any after it; costs about 0.3 us.

    With a lock of its own for each call: threads never meet in it, and a fork never finds it taken.
    """
    lock = allocate_lock()
    lock.acquire()
    lock.release()
    lock.acquire()
