"""What may be tuned of a family: the settings that its fit takes, each within a range, and who watches it learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.families import Fitted

Settings = Mapping[str, float]
"""Values by name; what is not there is as the family has it by default."""
DEFAULTS: Settings = MappingProxyType({})

Watch = Callable[[float, float], None]
"""Called while a family learns with how far it is and its validation log-loss so far; may raise to stop it.

How far: rounds or epochs times the learning rate. So small steps are compared with large ones at the same place, and
not thought poor for being slow.
"""

TUNED = "tuned"
"""The parameter of a fit that says whether its settings were searched for."""


@dataclass(frozen=True)
class Range:
    """Where a setting is searched, both ends included. log: evenly in its logarithm; whole: integers only."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high or (self.log and self.low == 0):
            raise ValueError(f"a range goes up from 0, or from above 0 by logarithm, however it is {self}")

    def clip(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.whole else inside


def settings_of(like: Fitted, space: Mapping[str, Range]) -> Settings:
    """The settings that were searched for an earlier fit; none where it was fitted by its defaults."""
    return {name: float(like.params[name]) for name in space} if like.params.get(TUNED) else DEFAULTS
