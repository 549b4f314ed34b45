"""The registry: the small service that knows nodes and cameras and decides which node serves which camera.

It comes after the agent and is not in this version: this package holds its command line only, which says so.  It will
import `nodeagent.contract` and `nodeagent.infra`, nothing else of the agent; the agent never imports it.
"""
