"""The registry over HTTP: cameras, nodes, assignments and tokens under `/api/v1`, for people and for agents.

What is kept for good is read and written here, in the store; all that is decided, or lives for seconds, is asked of the
core through `ports.Core`.  Its manual is the page that it serves at `/docs`.
"""
