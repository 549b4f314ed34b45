"""Zones in normalised coordinates: x to the right, y down, both in [0, 1] of the picture."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from nodeagent.contract.ids import FrozenStrict, Number

Unit = Annotated[Number, Field(ge=0.0, le=1.0)]
Point = tuple[Unit, Unit]

#: Which point of a box decides whether an object is in a zone.
Anchor = Literal["bottom_centre", "centre", "top_centre"]


def polygon_area(points: tuple[Point, ...]) -> float:
    """Signed area of a closed polygon (shoelace formula), in units of the picture's area."""
    return 0.5 * sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:] + points[:1], strict=True))


def _side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def crosses_itself(points: tuple[Point, ...]) -> bool:
    """Whether two edges that are not neighbours cross."""
    edges = list(zip(points, points[1:] + points[:1], strict=True))
    for i, (a, b) in enumerate(edges):
        for j in range(i + 2, len(edges)):
            if i == 0 and j == len(edges) - 1:
                continue
            c, d = edges[j]
            if _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0:
                return True
    return False


def _check_polygon(points: tuple[Point, ...]) -> tuple[Point, ...]:
    if crosses_itself(points):
        raise ValueError("edges cross; list the corners in order around the zone")
    if abs(polygon_area(points)) < 1e-6:
        raise ValueError("corners lie on one line; the zone has no area")
    return points


class Zone(FrozenStrict):
    """A named polygon in a camera's picture."""

    #: Name shown in alarms, unique within its rule.
    name: Annotated[str, Field(min_length=1, max_length=64)]
    #: Corners in order, three or more, each `[x, y]` in [0, 1]: x to the right, y down.
    polygon: Annotated[tuple[Point, ...], Field(min_length=3, max_length=64)]

    _polygon = field_validator("polygon")(_check_polygon)


class Line(FrozenStrict):
    """A named line in a camera's picture."""

    #: Name shown in alarms, unique within its rule.
    name: Annotated[str, Field(min_length=1, max_length=64)]
    #: First and second end, each `[x, y]` in [0, 1]; left and right are those of who goes from the first to the second.
    line: tuple[Point, Point]

    @field_validator("line")
    @classmethod
    def _has_length(cls, line: tuple[Point, Point]) -> tuple[Point, Point]:
        if line[0] == line[1]:
            raise ValueError("both ends are one point; a line has two")
        return line

    @property
    def polygon(self) -> tuple[Point, ...]:
        """The ends, as what is drawn for an alarm."""
        return self.line
