"""The fork server as it is in production: everything heavy loaded, one thread, no sender of usage data."""

import os
import subprocess
import sys

from nodeagent.supervisor.daemon import PRELOAD
from nodeagent.supervisor.forkserver import SURROUNDINGS

#: Says, in a process of its own as the fork server is, what the preload came to.
PROBE = f"""
import sys, os
import {PRELOAD} as preload
status = open("/proc/self/status").read()
print(preload.FAILED, status.partition("Threads:")[2].split()[0], "cv2" in sys.modules, "onnxruntime" in sys.modules)
print([name for name in ("fastapi", "uvicorn") if name in sys.modules])
"""


#: What the supervising process itself may not even have loaded.
HEAVY = ("numpy", "cv2", "av", "onnxruntime", "pika", "redis", "sqlalchemy", "httpx", "fastapi")


def test_the_parent_loads_nothing_of_the_stages() -> None:
    probe = f"import sys, nodeagent.supervisor.daemon; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_the_preload_loads_everything_but_the_web_server_and_starts_no_thread() -> None:
    environment = os.environ | SURROUNDINGS
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "{} 1 True True\n[]\n", done.stderr
