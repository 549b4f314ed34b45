"""One stream's decoder: in hardware where that is asked for and works, else in software, which is then told.

It is a decoder of our own: the source's belongs to the source's thread, which resets it when a file starts again.
"""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias, cast

import av
from av.codec.hwaccel import HWAccel

from nodeagent.contract.errors import BadMedia

log = logging.getLogger(__name__)

Packet: TypeAlias = "av.Packet[av.VideoStream]"
#: Which frames need not be decoded, in FFmpeg's words.
Skip = Literal["DEFAULT", "NONREF"]


class Decoder:
    """Decodes packets of one stream, in order.

    Attributes:
        software_because: why the hardware that was asked for is not used; empty when it is, or none was asked for.
    """

    def __init__(self, theirs: av.VideoCodecContext, hardware: str) -> None:
        """Decode like `theirs`; `hardware` names the device's type for FFmpeg, such as `cuda`; empty: none."""
        self._theirs = theirs
        self._hardware = hardware
        self.software_because = ""
        self._context = self._in_hardware() if hardware else self._opened(None)

    def decode(self, packet: Packet | None, skip: Skip = "DEFAULT") -> list[av.VideoFrame]:
        """Frames that are ready; with None all that are left, after which the next packet is a first one again.

        Raises:
            BadMedia: the packet cannot be decoded.
        """
        self._context.skip_frame = skip
        try:
            return self._context.decode(packet)
        except av.FFmpegError as exc:
            if not self._hardware or packet is None:
                raise BadMedia(str(exc)) from exc
            return self._again_in_software(packet, exc)
        finally:
            if packet is None:
                self._context.flush_buffers()

    def _in_hardware(self) -> av.VideoCodecContext:
        try:
            context = self._opened(HWAccel(device_type=self._hardware, allow_software_fallback=False))
            if context.is_hwaccel:
                return context
            why = f"{self._hardware} does not decode {self._theirs.codec.name}"
        except (av.FFmpegError, ValueError, RuntimeError, NotImplementedError) as exc:
            why = f"{self._hardware} cannot be used: {getattr(exc, 'strerror', None) or exc}"
        return self._fall_back(why)

    def _again_in_software(self, packet: Packet, cause: av.FFmpegError) -> list[av.VideoFrame]:
        self._context = self._fall_back(f"{self._hardware} failed: {cause.strerror}")
        try:
            return self._context.decode(packet)
        except av.FFmpegError as exc:
            raise BadMedia(str(exc)) from exc

    def _fall_back(self, why: str) -> av.VideoCodecContext:
        self._hardware, self.software_because = "", why
        log.warning("decoding in software: %s", why, extra={"event": "software_decode"})
        return self._opened(None)

    def _opened(self, hardware: HWAccel | None) -> av.VideoCodecContext:
        theirs = self._theirs
        context = cast("av.VideoCodecContext", av.CodecContext.create(theirs.codec.name, "r", hardware))
        context.extradata = theirs.extradata
        context.width, context.height = theirs.width, theirs.height
        # Not known of a stream whose parameter sets are missing or broken.
        if theirs.pix_fmt:
            context.pix_fmt = theirs.pix_fmt
        context.thread_count = 1
        return context
