"""The child `link`: talks to the registry and to Redis about which cameras this node owns."""
