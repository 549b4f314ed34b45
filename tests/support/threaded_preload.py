"""A preload that does what none may: it starts a thread in the fork server."""

import threading
import time

LOADED = True
FAILED: dict[str, str] = {}

threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
