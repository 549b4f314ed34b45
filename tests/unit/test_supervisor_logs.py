import json
import logging
import sys
import threading

import pytest

from nodeagent.infra.logging import JsonFormatter, TextFormatter, redact, set_up_logging
from nodeagent.infra.settings.sections import LogSettings


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("t").makeRecord("t", logging.WARNING, "f.py", 1, message, args, None, extra=extra)
    made.created = 0.25
    return made


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("open rtsp://user:pw@10.0.0.1/a failed", "open rtsp://***@10.0.0.1/a failed"),
        ("amqp://u:p@ss/w?@host:5672/v", "amqp://***@host:5672/v"),
        ("'redis://:secret@h', 'http://h/x'", "'redis://***@h', 'http://h/x'"),
        ("nothing to hide: http://host/a", "nothing to hide: http://host/a"),
    ],
)
def test_user_and_password_of_any_url_are_cut_out(text: str, clean: str) -> None:
    assert redact(text) == clean


def test_text_lines_carry_utc_time_level_and_child() -> None:
    line = TextFormatter("capture:gate").format(record("no %s", "video"))
    assert line == "1970-01-01T00:00:00.250Z warning capture:gate: no video"


def test_json_lines_carry_what_extra_gave_without_secrets() -> None:
    line = JsonFormatter("judge:0").format(record("at %s", "http://u:p@h/", event="x", url="rtsp://u:p@h/1", n=3))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "child": "judge:0",
        "logger": "t",
        "message": "at http://***@h/",
        "event": "x",
        "url": "rtsp://***@h/1",
        "n": 3,
    }


@pytest.mark.parametrize("formatter", [TextFormatter("c"), JsonFormatter("c")])
def test_a_traceback_is_cleaned_too(formatter: logging.Formatter) -> None:
    made = record("broken")
    try:
        raise ValueError("rtsp://user:hunter2@h/")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = formatter.format(made)
    assert "hunter2" not in line
    assert "ValueError: rtsp://***@h/" in line


def test_setting_up_twice_logs_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        for _ in range(2):
            set_up_logging(LogSettings(level="info"), "agent")
        logging.getLogger("nodeagent.x").info("hello")
        logging.getLogger("nodeagent.x").debug("not shown")
        assert capsys.readouterr().err.endswith("info    agent: hello\n")
        assert len(root.handlers) == 1
        sys.excepthook(ValueError, ValueError("at rtsp://u:hunter2@h/"), None)
        assert "ValueError: at rtsp://***@h/" in capsys.readouterr().err
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.captureWarnings(False)
