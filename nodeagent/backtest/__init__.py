"""Stored clips through inference and judge, faster than real time: a rule is tried on last night before it is armed."""
