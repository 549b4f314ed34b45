"""Capture: one process per camera turns its stream into clips on the pool, samples in the ring, and clip tasks."""
