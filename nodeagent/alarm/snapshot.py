"""The picture of an alarm: the confirming sample's frame with zone, boxes and a caption, as JPEG.

Pillow draws it: OpenCV has no Chinese letters.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Final

import av
from PIL import Image, ImageDraw, ImageFont

from nodeagent.contract.alarm import Evidence, EvidenceBox

#: Where Debian, Fedora and others keep a font with Chinese, Japanese and Korean letters; the first found is used.
CJK_FONTS: Final = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-cjk/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/google-noto-sans-cjk-fonts/NotoSansCJK-Regular.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-zenhei.ttc",
    "/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf",
)
#: Quality of the JPEG: boxes stay sharp, a 1080p picture takes about 300 kB.
JPEG_QUALITY: Final = 88
#: Caption height as a fraction of the picture's, and its least, pixels.
CAPTION_PART: Final = 28
CAPTION_MIN: Final = 12
SUBJECT_COLOUR: Final = (255, 48, 48)
OTHER_COLOUR: Final = (64, 200, 255)
ZONE_COLOUR: Final = (255, 200, 0)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def _cjk_file() -> str | None:
    return next((name for name in CJK_FONTS if Path(name).is_file()), None)


def _font(size: int) -> _Font:
    found = _cjk_file()
    return ImageFont.truetype(found, size) if found else ImageFont.load_default(size)


def printable(text: str, has_cjk: bool) -> str:
    """The text as far as the font at hand can write it."""
    return text if has_cjk else text.encode("ascii", "replace").decode()


def caption(camera_id: str, camera_name: str, rest: str) -> str:
    """One line for the picture; without a font for the camera's name, its id stands there, never only `????`."""
    writable = _cjk_file() is not None or camera_name.isascii()
    name = camera_name if camera_name and writable else ""
    who = f"{name} ({camera_id})" if name and name != camera_id else camera_id
    return printable(f"{who}  {rest}", _cjk_file() is not None)


def draw(frame: av.VideoFrame, evidence: Evidence, text: str) -> bytes:
    """The frame as JPEG with the zone, the boxes and `text` in a bar below the picture."""
    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    width, height = picture.size
    size = max(CAPTION_MIN, height // CAPTION_PART)
    font = _font(size)
    canvas = Image.new("RGB", (width, height + size * 2), (0, 0, 0))
    canvas.paste(picture, (0, 0))
    pen = ImageDraw.Draw(canvas)
    line = max(2, height // 270)
    if len(evidence.polygon) > 1:
        corners = [(x * width, y * height) for x, y in evidence.polygon]
        pen.line([*corners, corners[0]], fill=ZONE_COLOUR, width=line)
    for box in evidence.boxes:
        _draw_box(pen, box, (width, height), line, font)
    pen.text((size // 2, height + size // 3), text, fill=(255, 255, 255), font=font)
    out = io.BytesIO()
    canvas.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _draw_box(pen: ImageDraw.ImageDraw, box: EvidenceBox, size: tuple[int, int], line: int, font: _Font) -> None:
    width, height = size
    left, right = sorted((box.x1 * width, box.x2 * width))
    top, bottom = sorted((box.y1 * height, box.y2 * height))
    colour = SUBJECT_COLOUR if box.subject else OTHER_COLOUR
    pen.rectangle((left, top, right, bottom), outline=colour, width=line)
    label = printable(f"{box.label} {box.score:.2f}", _cjk_file() is not None)
    pen.text((left + line, max(0.0, top - getattr(font, "size", CAPTION_MIN) * 1.2)), label, fill=colour, font=font)
