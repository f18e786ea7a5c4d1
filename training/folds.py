"""Folds: every row is judged once, by a model that has learned from other customers (or, by time, from earlier rows).

One test part of a training run is small, and which customers lie in it is luck; folds use every row. By customer: a
hash of the id says which of K folds a customer is in, the rows of one customer together; each fold is judged by what
the other folds taught. By time: K + 1 blocks of rows in order of time, each but the first judged by what was known
before it, labels included.

Each fold is fitted as `nextbest train` fits: a part of what may be learned from is held back, chooses when to stop and
calibrates; the family is then fitted again on all that may be learned from and keeps that calibration. So what is
judged is what would have been registered. Nothing here is registered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Float64, Int64, Texts
from serving.choice import ChoiceModel
from training.contenders import Contender
from training.dataset import Dataset, require_take_ups
from training.evaluate import baselines
from training.families import FAMILIES
from training.predictions import MODEL
from training.prepared import Prepared
from training.race import run_race
from training.split import SHARES
from training.stable import hashes, shares

By = Literal["customer", "time"]
LEARNED = SHARES[0] / (SHARES[0] + SHARES[1])
"""Of what may be learned from: the share that families are fitted on; the rest chooses and calibrates."""


@dataclass(frozen=True)
class Fold:
    """Positions of rows, int64: what is learned from (train and valid, and rows across their border), and judged."""

    train: Int64
    valid: Int64
    learned: Int64
    test: Int64


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
    race = run_race(replace(prepared, data=learned, parts={**parts, "test": parts["valid"]}), order, progress)
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


def again(name: str, contender: Contender, learned: Dataset, seed: int) -> ChoiceModel:
    """The family fitted again on all of `learned`, as it chose before, with the calibration that it had."""
    fitted = FAMILIES[name].refit(learned.question, learned.examples, contender.fitted, seed)
    return replace(contender.model, scorer=fitted.scorer)


def make_folds(data: Dataset, count: int, by: By) -> list[Fold]:
    """`count` folds of the rows of `data`. Raises InputError where one would be empty."""
    spine = data.spine
    if by == "customer":
        return by_customer(spine.customer_id, count)
    return by_time(spine.as_of, spine.closes, spine.sort, count)


def by_customer(customer_id: Texts, count: int) -> list[Fold]:
    """No customer in two folds, nor on both sides of train and valid; who is where is a hash of the id."""
    share = shares(hashes(customer_id))
    place = np.minimum((share * count).astype(np.int64), count - 1)
    folds = []
    for one in range(count):
        rest = np.mod(share - (one + 1) / count, 1.0) / (1 - 1 / count)  # of the other folds, in a ring: [0, 1)
        learned = place != one
        train, valid = learned & (rest < LEARNED), learned & (rest >= LEARNED)
        folds.append(Fold(*(np.flatnonzero(mask) for mask in (train, valid, learned, ~learned))))
    return _all_filled(folds, f"{len(np.unique(customer_id.astype(str)))} customers")


def by_time(as_of: Int64, closes: Int64, sort: Texts, count: int) -> list[Fold]:
    """Blocks in order of time; a row is learned from where its label was known before the block begins.

    as_of, closes: int64 [n], µs. Where there are snapshots, borders lie on their moments.
    """
    grid = np.sort(np.unique(as_of[sort == "snapshot"]) if (sort == "snapshot").any() else as_of)
    if not len(grid):
        return _all_filled([], "no rows")
    begins = np.unique(np.quantile(grid, np.arange(1, count + 1) / (count + 1), method="lower"))
    if len(begins) < count:
        raise InputError(
            f"{count} folds by time need so many different moments to begin at, however these {len(as_of)} rows give "
            f"{len(begins)}; use fewer --folds, or --by customer"
        )
    ends = np.append(begins[1:], np.iinfo(np.int64).max)
    folds = []
    for begin, end in zip(begins, ends, strict=True):
        before = grid[grid < begin]
        border = int(np.quantile(before, LEARNED, method="lower")) if len(before) else int(begin)
        learned = closes <= begin
        train, valid = closes <= border, learned & (as_of >= border)
        test = (as_of >= begin) & (as_of < end)
        folds.append(Fold(*(np.flatnonzero(mask) for mask in (train, valid, learned, test))))
    return _all_filled(folds, f"{len(as_of)} rows")


def _all_filled(folds: list[Fold], what: str) -> list[Fold]:
    sizes = [min(len(part) for part in (fold.train, fold.valid, fold.test)) for fold in folds]
    if not sizes or not min(sizes):
        raise InputError(
            f"every fold needs rows to learn from, to choose on and to be judged on, however {len(folds)} folds of "
            f"{what} leave some empty; use fewer --folds, a shorter --horizon or bring more data"
        )
    return folds
