"""A small RTSP server on GStreamer, run by the system's Python (its bindings are not in a virtual environment).

    /usr/bin/python3 gst_server.py ADDRESS:PORT FPS USER PASSWORD NAME=FILE[:FRAMES[:SOUND[:LOSS[:SHARED]]]] ...

Files are Annex B with access unit delimiters (`.h264`, `.hevc`) or pictures in a row (`.mjpeg`), and are repeated for
ever without encoding.  With FRAMES each client gets so many of them, and sound that goes on; 0: all.  SOUND is `pcma`,
`aac` or `opus`.  LOSS is the part of packets that are not sent.  Every client gets the file from its first frame on;
with SHARED all get one stream, as it is when they come, while anybody watches.  Port 0 takes a free one.  One
line `ready PORT` is written to standard output.  User and password may be empty: no one is asked.  The process ends
when its standard input does, so that it never outlives the test that started it.
"""

import itertools
import re
import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

SOURCE = "( appsrc name=src is-live=true format=time block=false max-bytes=8000000 caps="
#: By the file's extension: from its frames to packets.
VIDEO = {
    ".h264": '"video/x-h264,stream-format=byte-stream,alignment=au" ! h264parse config-interval=-1'
    " ! video/x-h264,stream-format=avc,alignment=au ! rtph264pay name={} pt=96 config-interval=-1 mtu={} ",
    ".hevc": '"video/x-h265,stream-format=byte-stream,alignment=au" ! h265parse config-interval=-1'
    " ! rtph265pay name={} pt=96 config-interval=-1 mtu={} ",
    ".mjpeg": "image/jpeg ! jpegparse ! rtpjpegpay name={} pt=26 mtu={} ",
}
#: Tracks that are no video.
SOUND = {
    "pcma": "audiotestsrc is-live=true wave=silence ! audioconvert ! alawenc ! rtppcmapay name=pay{} pt=8 ",
    "aac": "audiotestsrc is-live=true ! audioconvert ! audioresample ! audio/x-raw,rate=48000,channels=1 ! voaacenc"
    " ! aacparse ! rtpmp4gpay name=pay{} pt=97 ",
    "opus": "audiotestsrc is-live=true ! audioconvert ! audioresample ! opusenc ! rtpopuspay name=pay{} pt=98 ",
}
#: Where the frames of a file begin.
CUTS = {".h264": rb"\x00\x00\x00\x01\x09", ".hevc": rb"\x00\x00\x00\x01\x46\x01", ".mjpeg": rb"\xff\xd8\xff"}


def access_units(path: str) -> list[bytes]:
    """Cut a file into its frames."""
    body = Path(path).read_bytes()
    cuts = [found.start() for found in re.finditer(CUTS[Path(path).suffix], body)] + [len(body)]
    return [body[start:end] for start, end in itertools.pairwise(cuts)]


def launch(path: str, sound: str, loss: str) -> str:
    """Description of a pipeline: video and sound, each if there is some."""
    text = "( "
    if path:
        # What loses packets must bear the payloader's name; small packets, so that each frame has some to lose.
        name, size, end = ("p", 400, f"! identity name=pay0 drop-probability={loss} ") if loss else ("pay0", 1400, "")
        text = SOURCE + VIDEO[Path(path).suffix].format(name, size) + end
    return text + (SOUND[sound].format(1 if path else 0) if sound else "") + ")"


class LoopFactory(GstRtspServer.RTSPMediaFactory):
    """Serves one file again and again, on one time line; nothing but sound without one, or after `frames`."""

    def __init__(self, path: str, fps: float, frames: int, sound: str, loss: str, shared: str) -> None:
        super().__init__()
        self.units = access_units(path) if path else []
        self.step_ns = int(Gst.SECOND / fps)
        self.frames = frames
        self.set_shared(bool(shared))
        self.set_launch(launch(path, sound or ("pcma" if frames or not path else ""), loss))

    def do_configure(self, media) -> None:
        """Feed the pipeline's source when it asks."""
        if self.is_shared():
            # This is what passes it on to the media.
            GstRtspServer.RTSPMediaFactory.do_configure(self, media)
        source = media.get_element().get_by_name("src")
        if source is None:
            return
        state = {"sent": 0}

        def feed(element, _wish) -> None:
            if self.frames and state["sent"] >= self.frames:
                return
            unit = self.units[state["sent"] % len(self.units)]
            buffer = Gst.Buffer.new_wrapped(unit)
            buffer.pts = buffer.dts = state["sent"] * self.step_ns
            buffer.duration = self.step_ns
            state["sent"] += 1
            element.emit("push-buffer", buffer)

        source.connect("need-data", feed)


def protect(server, factory, user: str, password: str) -> None:
    """Ask for user and password."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    rights = Gst.Structure.new_empty("user")
    rights.set_value("media.factory.access", True)
    rights.set_value("media.factory.construct", True)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_role_from_structure(rights)
    factory.set_permissions(permissions)


def main(listen: str, fps: str, user: str, password: str, *paths: str) -> None:
    """Serve until standard input ends."""
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    address, _, port = listen.rpartition(":")
    server.set_address(address)
    server.set_service(port)
    for item in paths:
        name, _, source = item.partition("=")
        path, frames, sound, loss, shared = (source.split(":") + [""] * 4)[:5]
        factory = LoopFactory(path, float(fps), int(frames or 0), sound, loss, shared)
        if user:
            protect(server, factory, user, password)
        server.get_mount_points().add_factory("/" + name, factory)
    server.attach(None)
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_HUP | GLib.IO_IN, lambda *_: loop.quit())
    print("ready", server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
