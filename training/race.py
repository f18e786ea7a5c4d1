"""The families of a run, fitted and judged, and the one that was chosen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from features.progress import Progress
from training.contenders import Contender, fit_all, flat_test, judge_all
from training.cross_fit import cross_fitted
from training.evaluate import Comparison, Judgement, primary_metric
from training.families import FAMILIES
from training.ladder import Ladder, climb
from training.plan import Order
from training.prepared import Prepared


@dataclass(frozen=True)
class Race:
    """contenders: by name of the family. valid, test: what they said of these parts. ladder: which was chosen, why.

    ladder_seconds: what choosing took, more fits among it.
    """

    contenders: Mapping[str, Contender]
    valid: Judgement
    test: Judgement
    ladder: Ladder
    ladder_seconds: float = 0.0

    @property
    def family(self) -> str:
        return self.ladder.family

    @property
    def reason(self) -> str:
        return self.ladder.reason

    @property
    def on_valid(self) -> Mapping[str, Comparison]:
        """Every family beside the prior and counting."""
        return {name: self.valid.comparison(name) for name in self.contenders}

    @property
    def on_test(self) -> Mapping[str, Comparison]:
        return {name: self.test.comparison(name) for name in self.contenders}

    def flat(self) -> dict[str, float]:
        """Metrics of the chosen family, `valid/…` and `test/…`, and of the ladder."""
        return {
            **self.valid.comparison(self.family).flat(self.family, "valid"),
            **self.test.comparison(self.family).flat(self.family, "test"),
            **self.ladder.flat(),
        }

    def shown(self) -> dict[str, dict[str, float]]:
        """Metrics on test of every family and of counting, by plain names."""
        shown = {name: flat_test(comparison, name) for name, comparison in self.on_test.items()}
        counted = self.test.comparison(self.family).judged
        return shown | {name: dict(judged.values) for name, judged in counted.items() if name not in FAMILIES}

    @property
    def notes(self) -> tuple[str, ...]:
        """What tuning found, why valid decided alone, and whether the chosen family's scores are probabilities."""
        tuned = (one.tuned.told(name) for name, one in self.contenders.items() if one.tuned is not None)
        model = self.contenders[self.family].model
        alone = f"the ladder has the validation rows alone: {self.ladder.not_more}" if self.ladder.not_more else None
        return tuple(filter(None, (*tuned, alone, model.calibration.note(model.question.model))))


def run_race(prepared: Prepared, order: Order, progress: Progress) -> Race:
    """Fit the families that were ordered, judge them on valid and test, and choose."""
    parts = prepared.parts
    contenders = fit_all(order.family, parts, order.seed, progress, order.tune)
    with progress.step("judge the families"):
        valid, test = (judge_all(contenders, parts["train"], parts[name], order.seed) for name in ("valid", "test"))
    metric = primary_metric(parts["valid"])
    more = partial(cross_fitted, prepared, order, tuple(contenders), metric, progress)
    started = time.perf_counter()
    ladder = climb(order.family, valid, test, metric, more)
    return Race(contenders, valid, test, ladder, time.perf_counter() - started)
