"""Plays a video file or an HLS playlist in a real browser, and says how it went."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.missing import not_tested

#: Seconds for a browser's start and a replay at 8 times its speed, on a busy machine.
PLAY_S = 90.0
_PAGE = b"""<!doctype html><video id="v" muted src="/video.mp4"></video><script>
const v = document.getElementById("v");
const tell = error => fetch("/told", {method: "POST", body: JSON.stringify({
  error, duration_s: v.duration, frames: v.getVideoPlaybackQuality().totalVideoFrames})});
v.playbackRate = 4;
v.onended = () => tell("");
v.onerror = () => tell(v.error.message || "error " + v.error.code);
v.play().catch(e => tell(String(e)));
</script>"""

#: Plays a playlist to its end, then goes back to its middle and plays from there: what `%s` names.
_STREAM_PAGE = """<!doctype html><video id="v" muted src="%s"></video><script>
const v = document.getElementById("v");
const tell = error => fetch("/told", {method: "POST", body: JSON.stringify({
  error, duration_s: v.duration, frames: v.getVideoPlaybackQuality().totalVideoFrames, at_s: v.currentTime})});
v.playbackRate = 4;
v.onended = () => {
  v.onended = null;
  const middle = v.duration / 2;
  v.onseeked = () => {
    v.ontimeupdate = () => { if (v.currentTime > middle + 0.2) { v.ontimeupdate = null; tell(""); } };
    v.play();
  };
  v.currentTime = middle;
};
v.onerror = () => tell(v.error.message || "error " + v.error.code);
v.play().catch(e => tell(String(e)));
</script>"""


@dataclass(frozen=True, slots=True)
class Played:
    """What the browser says after playing a file to its end: `error` is empty when it could."""

    error: str
    duration_s: float
    frames: int
    #: Where it was at the end.
    at_s: float = 0.0


def need_chromium() -> str:
    """Path of Chromium; without one fail in CI, skip loudly elsewhere."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        not_tested("no Chromium: apt-get install chromium")
    return found


def play(video: Path) -> Played:
    """Play the file from its start to its end in headless Chromium."""
    return _played(_PAGE, video.read_bytes())


def play_stream(url: str) -> Played:
    """Play an HLS playlist to its end, then seek to its middle and play on, in headless Chromium."""
    return _played((_STREAM_PAGE % url.replace("&", "&amp;")).encode(), b"")


def _played(page: bytes, video: bytes) -> Played:
    chromium = need_chromium()
    with _served(page, video) as (url, told, answer), tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
        flags += ["--disable-background-networking", "--disable-component-update", "--mute-audio"]
        flags += ["--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}"]
        browser = subprocess.Popen(
            # It needs a page that stays open: a debugging port of its own choice keeps it running.
            [chromium, *flags, "--remote-debugging-port=0", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert told.wait(PLAY_S), f"Chromium did not finish within {PLAY_S} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(browser.pid, 9)
            browser.wait()
    return Played(
        str(answer["error"]), float(answer["duration_s"] or 0.0), int(answer["frames"]), float(answer.get("at_s") or 0)
    )


@contextlib.contextmanager
def _served(page_body: bytes, body: bytes) -> Iterator[tuple[str, threading.Event, dict[str, float | str]]]:
    told, answer = threading.Event(), dict[str, float | str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = self.path == "/"
            if not page and self.path != "/video.mp4":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if page else "video/mp4")
            self.send_header("Content-Length", str(len(page_body if page else body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(page_body if page else body)

        def do_POST(self) -> None:
            answer.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            told.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", told, answer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
