"""One camera as the configuration or the registry describes it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, SerializationInfo, field_serializer, field_validator, model_validator
from pydantic_core import PydanticCustomError

from nodeagent.contract.ids import CameraId, FrozenStrict, ModelName, Number, Switch, Whole
from nodeagent.contract.rule import Rule
from nodeagent.contract.url import SOURCES, bad_url, meant_as_source, split_url

#: What a stream's URL may begin with.  A path without a scheme is a file.
SCHEMES = (*SOURCES, "file", "")
_STREAM = "rtsp://user:password@host:port/path, rtsps, rtmp, rtmps, http or https, or the path of a video file"
#: Which frames are analysed.
SampleMode = Literal["frames", "keyframes"]
#: Class of retention of cameras that name none.
DEFAULT_CLASS = "default"
#: Pass as pydantic's serialisation context to write secrets in clear: only into files of mode 0600.
REVEAL = {"reveal": True}
_SECRET_PARAMETER = re.compile(r"(?i)([\w-]*(?:pass|pwd|psw|token|secret|auth|sign|key)[\w-]*)=[^&;\s]*")


def redact_url(url: str) -> str:
    """The URL without user and password, fit for logs and pages.

    It hides too much rather than too little: a password may hold `/`, `?` or `@` that nobody escaped, so all before the
    last `@` goes, and some cameras take their password as a parameter (`/user=admin&password=...`).
    """
    scheme, mark, rest = url.partition("://")
    if mark and "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return scheme + mark + _SECRET_PARAMETER.sub(r"\1=***", rest)


class StreamSpec(FrozenStrict):
    """One stream of a camera."""

    #: rtsp://user:password@host/path, also rtsps, rtmp, rtmps, http and https (HLS, FLV, MPEG-TS, MJPEG), or the path
    #: of a video file.  What of it works: operations.md, "Sources".
    url: SecretStr
    #: RTSP only: how packets travel.  `udp` loses some where the network does, and needs ports open towards the node.
    transport: Literal["tcp", "udp"] = "tcp"
    #: Files only: start again at the end, paced in real time.
    loop: Switch = False
    #: Record the sound too, where MP4 can carry it as it is.  Set it to false where sound may not be recorded.
    audio: Switch = True

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        parts = split_url(text, _STREAM)
        # An `@` in the password is let pass: cameras have such passwords, and FFmpeg reads up to the last one.
        if not text or parts.scheme not in SCHEMES or (meant_as_source(text) and not parts.hostname):
            raise bad_url(_STREAM)
        return url

    @field_serializer("url", when_used="json")
    def _write_url(self, url: SecretStr, info: SerializationInfo) -> str:
        reveal = bool(info.context and info.context.get("reveal"))
        return url.get_secret_value() if reveal else redact_url(url.get_secret_value())

    @property
    def scheme(self) -> str:
        """The URL's scheme in small letters; empty for a path."""
        return split_url(self.url.get_secret_value(), _STREAM).scheme

    @property
    def is_file(self) -> bool:
        """Whether the stream is a local file rather than a network source."""
        return self.scheme in ("file", "")

    @property
    def over_udp(self) -> bool:
        """Whether its packets come over UDP, where some may be lost."""
        return self.transport == "udp" and self.scheme in ("rtsp", "rtsps")


class CameraSpec(FrozenStrict):
    """A camera: where its picture comes from and what is judged in it."""

    #: Name in logs, files and messages, unique in the site.
    camera_id: CameraId
    #: Name for people.
    name: str = ""
    #: Main stream: recorded, never re-encoded.
    record: StreamSpec
    #: Sub-stream that is analysed; none: the main stream is.  With it the main stream is only copied, never decoded,
    #: unless the sub-stream is away.
    analyse: StreamSpec | None = None
    #: Samples per second that are analysed.
    sample_fps: Annotated[Number, Field(gt=0.0, le=30.0)] = 5.0
    #: `frames`: samples at `sample_fps` whatever the stream's frame rate.  `keyframes`: only key frames are decoded, at
    #: most `sample_fps` of them: a tenth of the CPU, for pictures in which nothing happens within seconds.
    sample_mode: SampleMode = "frames"
    #: Width of a sample in the ring, pixels, even; the height follows the stream's aspect ratio.
    sample_width: Annotated[Whole, Field(ge=64, le=3840, multiple_of=2)] = 640
    #: Name of a model under `[[models]]`; empty: the first one.
    model: ModelName | Literal[""] = ""
    #: Name of a class under `[[retention]]`, which says how long clips stay; empty: `default`.
    retention: ModelName | Literal[""] = ""
    #: What is a violation in this camera's picture.
    rules: tuple[Rule, ...] = ()

    @model_validator(mode="after")
    def _rule_ids_differ(self) -> CameraSpec:
        ids = [rule.rule_id for rule in self.rules]
        if len(set(ids)) != len(ids):
            raise PydanticCustomError("names_differ", "two rules have one rule_id: {ids}", {"ids": str(sorted(ids))})
        return self

    @property
    def capture_part(self) -> tuple[Any, ...]:
        """All that a running capture depends on: a change of anything else leaves its process alone."""
        return (self.camera_id, self.record, self.analyse, self.sample_fps, self.sample_mode, self.sample_width)
