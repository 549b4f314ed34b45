"""The registry: the small service that knows nodes and cameras and decides which node serves which camera.

It imports `nodeagent.contract` and `nodeagent.infra`, nothing else of the agent; the agent never imports it.  `core` is
its one loop, `store` what it keeps for good, `http` its API; the files beside them are its thinking, and pure.
"""
