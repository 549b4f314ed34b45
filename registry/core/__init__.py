"""The registry's one loop: it collects what nodes report and what Redis and the database say, decides, and acts.

Threads: `loop` (the loop and all of Redis), `clerk` (all of the database), and those of the HTTP API, which enqueue
and read.  The loop never waits for the database, so cameras find new nodes while it is away.
"""
