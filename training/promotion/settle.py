"""The end of a run: the gate is asked, and what serves moves only where it allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from serving.registry import CHAMPION
from training.promotion.gate import decide
from training.track import PRIOR_FOLDER

if TYPE_CHECKING:
    from training.promotion.verdict import Verdict
    from training.track import Tracking

Gate: TypeAlias = "Callable[[Tracking, str, str, int], Verdict]"
"""Tracking, model, run and seed → the verdict; it moves nothing."""


@dataclass(frozen=True)
class Promotion:
    """promoted: whether the run's model serves now. verdict: in words, with the reasons and who serves."""

    promoted: bool
    verdict: str


def settle(
    tracking: Tracking, model: str, run_id: str, seed: int, unfit: str | None = None, gate: Gate = decide
) -> Promotion:
    """Ask the gate about a finished run and move the aliases accordingly.

    Passed: its model becomes the champion. Refused: the champion stays. Refused where there is no champion, or one that
    cannot answer any more (`unfit` says why): the prior of the run serves, the least that can be said of anyone.
    """
    verdict = gate(tracking, model, run_id, seed)
    if verdict.passed:
        version = tracking.promote(model, run_id)
        return Promotion(True, f"passed: version {version} is the champion now")
    reasons = f"refused, {verdict.reasons}"
    standing = tracking.named(model, CHAMPION)
    if standing is not None and unfit is None:
        return Promotion(False, f"{reasons}; version {standing[0]} stays the champion")
    version = tracking.promote(model, run_id, PRIOR_FOLDER)
    why = "there was no champion" if standing is None else f"the champion cannot answer any more ({unfit})"
    return Promotion(False, f"{reasons}; as {why}, the prior of this run serves, version {version}")
