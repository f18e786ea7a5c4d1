"""Folds: every row is judged once, by a model that has learned from other customers (or, by time, from earlier rows).

One test part of a training run is small, and which customers lie in it is luck; folds use every row (`fold_rows` says
which lies where).

Each fold is fitted as `nextbest train` fits: a part of what may be learned from is held back, chooses when to stop and
calibrates; the family is then fitted again on all that may be learned from and keeps that calibration. So what is
judged is what would have been registered. Nothing here is registered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.progress import SILENT, Progress
from features.schema import Float64, Int64
from serving.choice import ChoiceModel
from training.contenders import Contender
from training.dataset import Dataset, require_take_ups
from training.evaluate import baselines
from training.families import FAMILIES
from training.fold_rows import Fold
from training.predictions import MODEL
from training.prepared import Prepared
from training.race import run_race
from training.split import Split


@dataclass(frozen=True)
class Fit:
    """How a fold was fitted: its rows; the family and why; rounds and calibration of each family."""

    rows: Mapping[str, int]
    family: str
    reason: str
    rounds: Mapping[str, int]
    calibration: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class Folded:
    """All judged rows, what was said of each by models that have not seen it, and how each fold came about.

    said: name → float64 [n, m], calibrated: MODEL, every family that was fitted, and counting. fold: int64 [n].
    """

    data: Dataset
    said: Mapping[str, Float64]
    fold: Int64
    fits: tuple[Fit, ...]


def run_folds(prepared: Prepared, folds: Sequence[Fold], progress: Progress = SILENT) -> Folded:
    """Fit and score every fold. Raises InputError where a fold has too little to learn from."""
    data = prepared.data
    said: dict[str, Float64] = {}
    fold = np.full(len(data), -1, dtype=np.int64)
    fits = []
    with progress.step("fit and score the folds", len(folds)) as advance:
        for place, one in enumerate(folds):
            scores, how = fitted(prepared, one, progress)
            for name, values in scores.items():
                said.setdefault(name, np.full(data.available.shape, np.nan))[one.test] = values
            fold[one.test] = place
            fits.append(how)
            advance(1)
    judged = np.flatnonzero(fold >= 0)
    return Folded(data.take(judged), {name: values[judged] for name, values in said.items()}, fold[judged], tuple(fits))


def fitted(prepared: Prepared, fold: Fold, progress: Progress) -> tuple[dict[str, Float64], Fit]:
    """What a fold's models say of its rows, float64 [n, m] each, and how they were fitted."""
    data, order = prepared.data, prepared.plan.order
    learned, test = data.take(fold.learned), data.take(fold.test)
    parts = {"train": data.take(fold.train), "valid": data.take(fold.valid)}
    require_take_ups(parts["train"], "rows with an outcome to learn from in every fold")
    # A run's test rows may stop a family. Those of a fold do not: they are judged when all folds are, all together.
    parts["test"] = parts["valid"]
    race = run_race(replace(prepared, data=learned, split=within(fold, prepared, data), parts=parts), order, progress)
    said = baselines(learned, test)
    for name, contender in race.contenders.items():
        said[name] = again(name, contender, learned, order.seed).probabilities(test.rows, test.available)
    said[MODEL] = said[race.family]
    return said, Fit(
        rows={**{name: len(part) for name, part in parts.items()}, "test": len(test)},
        family=race.family,
        reason=race.reason,
        rounds={name: contender.fitted.rounds for name, contender in race.contenders.items()},
        calibration={name: contender.model.calibration.kind for name, contender in race.contenders.items()},
        seconds=sum(contender.fitted.seconds for contender in race.contenders.values()),
    )


def within(fold: Fold, prepared: Prepared, data: Dataset) -> Split:
    """A fold's train and valid as places in what it learns from, all of which is known; no test rows."""
    train, valid = (np.searchsorted(fold.learned, part) for part in (fold.train, fold.valid))
    everything = int(np.iinfo(np.int64).max)
    borders = None if prepared.split.borders is None else (int(data.spine.as_of[fold.valid].min()), everything)
    return Split(train, valid, valid[:0], len(fold.learned) - len(train) - len(valid), borders)


def again(name: str, contender: Contender, learned: Dataset, seed: int) -> ChoiceModel:
    """The family fitted again on all of `learned`, as it chose before, with the calibration that it had."""
    fitted = FAMILIES[name].refit(learned.question, learned.examples, contender.fitted, seed)
    return replace(contender.model, scorer=fitted.scorer)
