"""Logs to standard error, where systemd's journal takes them: UTC times, the child's name, text or JSON lines.

As a last defence, whatever stands between `://` and an `@` is cut out of every finished line, tracebacks included;
callers still have to use `redact_url`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from nodeagent.infra.settings.sections import LogSettings

#: User and password of a URL: up to the last @ of the word, because a password may hold an @ that nobody escaped.
_CREDENTIALS = re.compile(r"(?i)([a-z][a-z0-9+.-]*://)[^\s\"'<>]*@")
#: Libraries that log every connection at `info`; what they say is said by our own lines.
_CHATTY = ("pika", "alembic", "httpx", "httpcore", "sqlalchemy.engine")
#: Attributes that every record has; any others came through `extra`.
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """The text without users and passwords of URLs."""
    return _CREDENTIALS.sub(r"\1***@", text)


def set_up_logging(settings: LogSettings, child: str) -> None:
    """Send this process's log, warnings and unhandled errors to standard error; replaces what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(child) if settings.format == "json" else TextFormatter(child))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _thread_died
    sys.excepthook = _process_died


class TextFormatter(logging.Formatter):
    """Lines for people."""

    def __init__(self, child: str) -> None:
        super().__init__()
        self._child = child

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it if there is one."""
        line = f"{_time(record)} {record.levelname.lower():7} {self._child}: {record.getMessage()}"
        trace = _trace(self, record)
        return redact(f"{line}\n{trace}" if trace else line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines."""

    def __init__(self, child: str) -> None:
        super().__init__()
        self._child = child

    def format(self, record: logging.LogRecord) -> str:
        """`time`, `level`, `child`, `logger`, `message`, what `extra` gave, and `traceback` if there is one."""
        doc: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "child": self._child,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        extra = {key: value for key, value in record.__dict__.items() if key not in _STANDARD and key not in doc}
        doc |= {key: redact(value) if isinstance(value, str) else value for key, value in extra.items()}
        trace = _trace(self, record)
        if trace:
            doc["traceback"] = redact(trace)
        return json.dumps(doc, default=lambda value: redact(str(value)), ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The traceback made anew each time: the cached one of `Formatter` is shared with other handlers."""
    text = formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
    return f"{text}\n{formatter.formatStack(record.stack_info)}" if record.stack_info else text


def _thread_died(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else "?"
        log = logging.getLogger(__name__)
        log.error("thread %s died", name, exc_info=args.exc_value, extra={"event": "thread_died"})


def _process_died(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger(__name__).critical("unforeseen error", exc_info=error, extra={"event": "process_died"})
