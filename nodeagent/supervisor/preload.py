"""Imported by the fork server before its first fork: everything heavy, once, so that children start fast and share it.

The fork server swallows ImportErrors, and a thread that an import starts makes every fork a gamble, so `LOADED` and
`FAILED` are there for the children to check (`child.server_faults`).  Nobody else imports this module.
"""

from __future__ import annotations

import gc
import importlib
from typing import Final

from nodeagent.supervisor.kinds import KINDS

#: Libraries of the stages, named so that a stage that imports one of them late finds it here.
LIBRARIES: Final = (
    "numpy",
    "cv2",
    "av",
    "onnxruntime",
    "scipy.optimize",
    "shapely",
    "PIL.Image",
    "pika",
    "redis",
    "sqlalchemy",
    "alembic",
    "pymysql",
    "httpx",
    "nodeagent.supervisor.child",
)


def _load() -> dict[str, str]:
    failed = {}
    for name in (*LIBRARIES, *(row.worker.partition(":")[0] for row in KINDS.values() if row.preload)):
        try:
            importlib.import_module(name)
        except Exception as exc:  # whatever it raises: the others are still wanted
            failed[name] = f"{type(exc).__name__}: {exc}"
    return failed


#: Module to what its import raised; empty when all is well.
FAILED: Final = _load()
# Children write no reference counts' neighbours of what will never be freed: the pages stay shared.
gc.collect()
gc.freeze()
LOADED: Final = True
