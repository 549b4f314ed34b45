"""Imported by the fork server first of all: signals to the whole process group do not reach it.

TERM from `timeout`, a container or an impatient operator, INT from Ctrl-C and HUP from a closed terminal would end the
server in the middle of a drain, and the children with it.  It ends when the supervisor is gone or kills it.

Blocked, not ignored: a child starts with the same mask, so a TERM that comes before it can act on it waits until it can
(`child` unblocks them).  Nobody else imports this module.
"""

from __future__ import annotations

import signal

from nodeagent.supervisor.inbox import TAKEN

signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
