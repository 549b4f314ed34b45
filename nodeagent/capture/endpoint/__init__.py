"""The clip endpoint: this node's clips over HTTP, by camera and identity, never by path.

A child of its own, so that no player and no other node can hold up a recording.  What needs FastAPI is loaded by this
child alone.  `docs/endpoint.md` is its manual.
"""
