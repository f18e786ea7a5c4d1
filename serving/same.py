"""Runs of objects as keys: what was made of them once is found again where the very same objects come again.

Comparing a hundred objects by what they say costs more than what is to be saved; where they are is enough, as long as
the key holds them, so that no other object can get their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Run = TypeVar("Run", bound=Sequence[object] | npt.NDArray[np.object_])


class Same(Generic[Run]):
    """Equal to another one of the same objects in the same order. Nobody may change `run`."""

    __slots__ = ("_hash", "_places", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        # An array of objects is where they are.
        self._places = run.tobytes() if isinstance(run, np.ndarray) else tuple(map(id, run))
        self._hash = hash(self._places)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self._places == other._places
