"""What a gate says: rules, what was measured, what is allowed, and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

PASSED, REFUSED, NOT_COUNTED = "passed", "refused", "not counted"


@dataclass(frozen=True)
class Check:
    """One rule. passed: None = not counted, the reason says why. measured, allowed: None where they are no numbers."""

    name: str
    passed: bool | None
    measured: float | None
    allowed: float | None
    reason: str

    @property
    def word(self) -> str:
        return NOT_COUNTED if self.passed is None else PASSED if self.passed else REFUSED


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a challenger; passed where no check refuses.

    challenger: its run. champion: the run that it was compared with, None where there was none.
    """

    passed: bool
    checks: tuple[Check, ...]
    challenger: str = ""
    champion: str | None = None

    @property
    def word(self) -> str:
        return PASSED if self.passed else REFUSED

    @property
    def refusals(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def not_counted(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is None)

    @property
    def reasons(self) -> str:
        """Why it was refused, on one line; empty where it passed."""
        return "; ".join(f"{check.name}: {check.reason}" for check in self.refusals)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        raw: dict[str, Any] = json.loads(text)
        return cls(**{**raw, "checks": tuple(Check(**check) for check in raw["checks"])})


def check(name: str, passed: bool, measured: float, allowed: float | None, reason: str) -> Check:
    """A rule that was measured; a measure that is not finite is kept as none."""
    return Check(name, bool(passed), float(measured) if np.isfinite(measured) else None, allowed, reason)


def not_counted(name: str, why: str) -> Check:
    """A rule that could not be measured: no evidence, for or against."""
    return Check(name, None, None, None, why)
