"""The shared-memory ring: a camera's samples, handed from its capture to any number of readers without a copy.

One named file on tmpfs per camera and generation.  One writer, which never waits; readers get a whole frame or nothing.
`layout` says what lies where, `folder` names and finds the files, `writer` and `reader` are the two ends.  Why it is
built this way: docs/adr/0002-ring.md.
"""

from nodeagent.ring.folder import ring_path
from nodeagent.ring.reader import RingReader
from nodeagent.ring.writer import RingWriter, forget_rings

__all__ = ["RingReader", "RingWriter", "forget_rings", "ring_path"]
