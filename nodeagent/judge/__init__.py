"""Detections to alarms: tracker, zones, rules, episodes.  All but `worker` and `store` is pure."""
