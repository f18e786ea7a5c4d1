"""The families of a run, fitted and judged, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from features.progress import Progress
from training.contenders import Contender, choose, families, fit, flat_test, judge_all
from training.evaluate import Comparison, primary_metric
from training.families import FAMILIES
from training.plan import Order
from training.prepared import Prepared


@dataclass(frozen=True)
class Race:
    """All by name of the family. family, reason: which was chosen, and why."""

    contenders: Mapping[str, Contender]
    on_valid: Mapping[str, Comparison]
    on_test: Mapping[str, Comparison]
    family: str
    reason: str

    def flat(self) -> dict[str, float]:
        """Metrics of the chosen family, `valid/…` and `test/…`."""
        return {
            **self.on_valid[self.family].flat(self.family, "valid"),
            **self.on_test[self.family].flat(self.family, "test"),
        }

    def shown(self) -> dict[str, dict[str, float]]:
        """Metrics on test of every family and of counting, by plain names."""
        shown = {name: flat_test(self.on_test[name], name) for name in self.contenders}
        counted = self.on_test[self.family].judged
        return shown | {name: dict(judged.values) for name, judged in counted.items() if name not in FAMILIES}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found by tuning, and whether the scores of the chosen family are probabilities."""
        tuned = (one.tuned.told(name) for name, one in self.contenders.items() if one.tuned is not None)
        model = self.contenders[self.family].model
        return tuple(filter(None, (*tuned, model.calibration.note(model.question.model))))


def run_race(prepared: Prepared, order: Order, progress: Progress) -> Race:
    """Fit the families that were ordered, judge them on valid and test, and choose."""
    parts = prepared.parts
    contenders = {name: fit(name, parts, order.seed, progress, order.tune) for name in families(order.family)}
    on_valid = judge_all(contenders, parts["train"], parts["valid"], order.seed)
    on_test = judge_all(contenders, parts["train"], parts["test"], order.seed)
    family, reason = choose(order, on_valid, on_test, primary_metric(parts["valid"]))
    return Race(contenders, on_valid, on_test, family, reason)
