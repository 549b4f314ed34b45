"""What every engine promises: bytes of pictures in, the model's raw numbers out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself and its model.

    Attributes:
        engine: name and version of the library.
        device: where it computes.
        threads: threads of one call.
        batch: samples per call that the model is fixed to; None: any number.
        outputs: shapes of the outputs for one sample.
        sample_s: seconds that one sample took in the dry run, at most: the first run is the slowest.
    """

    engine: str
    device: str
    threads: int
    batch: int | None
    outputs: tuple[tuple[int, ...], ...]
    sample_s: float


class Engine(Protocol):
    """A loaded model that can be run.  One thread at a time."""

    def infer(self, batch: Pixels) -> list[Numbers]:
        """Run the model.

        Args:
            batch: (b, height, width, 3) uint8, channels in the model's order, b >= 1.

        Returns:
            The outputs, each (b, ...) float32, owned by the caller.

        Raises:
            BadModel: the engine could not run it.
        """
        ...

    def describe(self) -> EngineInfo:
        """What runs, and where."""
        ...
