"""More rows for the ladder: what families say of rows of train and valid that they have not learned from.

Where train and valid were parted by customer: folds of their customers, each judged by what the others taught, so every
row is judged once. By time: five blocks in order of time, of which the last three are judged, each by what was known
before it; what two blocks teach is too far from what will be shipped to be asked. Test rows are never among them.

Each fold is fitted as the run itself fits: a part of what may be learned from is held back, chooses when to stop and
calibrates. So no judged row has stopped or calibrated anything, which the validation rows of the run have. There is
less to learn from than in the run: learners are judged with a handicap, and noise is not promoted by it.

Costs about two (by time) or three times as much (by customer) as fitting the families did: left out where the data are
large, as many validation rows decide by themselves, and where settings were tuned, for which train was looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import numpy as np

from features.errors import InputError
from features.progress import Progress
from features.schema import Float64
from training import metrics
from training.contenders import Contender, fit_all
from training.dataset import Dataset, require_take_ups
from training.evaluate import Judgement
from training.fold_rows import Fold, by_customer, by_time
from training.ladder import Evidence
from training.plan import Order
from training.prepared import Prepared

FOLDS = 4
"""Of customers."""
BLOCKS, ONLY_LEARNED = 5, 2
"""Of time: how many, and how many of them, the first, are not judged."""
SALT = 1
"""Train, valid and test, and folds around this run, are parted by the hash without one."""
MOST_PAIRS = 1_500_000
"""Pairs of a row and a candidate in train and valid; of more, valid alone decides."""
FEWEST_TAKEN = 500
"""Rows of train and valid with a take-up; of fewer, folds teach too little to tell of what will be shipped."""


FitAll: TypeAlias = Callable[[str, Mapping[str, Dataset], int, Progress], Mapping[str, Contender]]
"""Which families, train and valid, seed, progress → families by name, as `fit_all` fits them."""


def cross_fitted(
    prepared: Prepared,
    order: Order,
    names: Collection[str],
    metric: str,
    progress: Progress,
    fit: FitAll = fit_all,
) -> Evidence:
    """Those of the families `names` that every fold has, judged on the rows of all folds by `metric` and the log-loss.

    Raises InputError where the rows are too many or too few, or settings were tuned.
    """
    if order.tune:
        raise InputError("more rows can judge default settings alone, however these were tuned on rows of train")
    learned = prepared.learned
    pairs, taken = int(learned.available.size), int(learned.taken.any(axis=1).sum())
    if pairs > MOST_PAIRS or taken < FEWEST_TAKEN:
        raise InputError(
            f"rows are cross-fitted from {FEWEST_TAKEN} take-ups on and up to {MOST_PAIRS:,} pairs of a row and a "
            f"candidate, however these are {taken:,} and {pairs:,}"
        )
    folds, way = folds_of(prepared, learned)
    said = []
    with progress.step("try the rungs on more rows", len(folds)) as advance:
        for fold in folds:
            said.append(said_of(learned, fold, order, progress, fit))
            advance(1)
        known = [name for name in names if all(name in one for one in said)]
        together = {name: np.concatenate([one[name] for one in said]) for name in known}
        judged = learned.take(np.concatenate([fold.test for fold in folds]))
        judgement = Judgement.of_rows(together, judged, order.seed, (metric, metrics.LOG_LOSS))
    return Evidence(judgement, f"{judgement.rows_judged(metric):,} rows in {way}")


def folds_of(prepared: Prepared, learned: Dataset) -> tuple[list[Fold], str]:
    """Folds of the rows of `learned`, by time or by customer as they were parted from test; and which, in words."""
    if prepared.split.borders is None:
        folds = by_customer(learned.customer_id, FOLDS, SALT)
        return folds, f"{FOLDS} folds of customers, each judged by what the others taught"
    spine = learned.spine
    folds = by_time(spine.as_of, spine.closes, spine.sort, BLOCKS - 1, ONLY_LEARNED - 1)
    return folds, f"{len(folds)} blocks of time, each judged by what was known before it"


def said_of(data: Dataset, fold: Fold, order: Order, progress: Progress, fit: FitAll) -> Mapping[str, Float64]:
    """What the families that the fold's rows taught say of those it judges, float64 [n, m] each."""
    parts = {"train": data.take(fold.train), "valid": data.take(fold.valid)}
    require_take_ups(parts["train"], "rows with an outcome to learn from in every fold")
    test = data.take(fold.test)
    contenders = fit(order.family, parts, order.seed, progress)
    return {name: one.model.probabilities(test.rows, test.available) for name, one in contenders.items()}
