"""Names and the base of all frozen models.

An id becomes a routing key, a file name and a Redis field, so its alphabet is narrow: it can never be a path.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

#: Letters, digits, `_`, `.` and `-`; starts with a letter or digit, so it is never `..`, hidden or an option.
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"

CameraId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
NodeId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
RuleId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
ModelName = Annotated[str, StringConstraints(pattern=ID_PATTERN)]

#: Grows at every change of a camera's owner; 0 is never given.
Epoch = Annotated[int, Field(ge=1, lt=2**63)]
#: Nanoseconds since 1970-01-01, UTC.
UtcNs = Annotated[int, Field(ge=0, lt=2**63)]

#: Nanoseconds in a second and in a millisecond.
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000


def _no_text(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise ValueError("expected a number without quotes")  # noqa: TRY004  pydantic collects ValueError only
    return value


def _no_number(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004  pydantic collects ValueError only
    return value


#: Numbers and switches as a person must write them: pydantic alone would take `"5"` and `true` for a number.
Number = Annotated[float, BeforeValidator(_no_text)]
Whole = Annotated[int, BeforeValidator(_no_text)]
Switch = Annotated[bool, BeforeValidator(_no_number)]


class Frozen(BaseModel):
    """An immutable value.  Unknown fields are ignored, so that a newer sender can talk to an older reader."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class FrozenStrict(BaseModel):
    """An immutable value written by a person: an unknown field is a spelling mistake and refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
