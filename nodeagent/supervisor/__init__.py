"""The daemon: which children there should be (pure), what to do about it (pure), and the loop that does it."""
