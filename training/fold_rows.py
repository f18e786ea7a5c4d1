"""Which rows lie in which fold: by customer, or in blocks of time.

By customer: a hash of the id says which of K folds a customer is in, the rows of one customer together; each fold is
judged by what the other folds taught. By time: K + 1 blocks of rows in order of time, each but the first judged by what
was known before it, labels included. Of what may be learned from, a part is held back: it chooses when to stop and
calibrates, and is never judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from features.errors import InputError
from features.schema import Int64, Texts
from training.dataset import Dataset
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


def make_folds(data: Dataset, count: int, by: By) -> list[Fold]:
    """`count` folds of the rows of `data`. Raises InputError where one would be empty."""
    spine = data.spine
    if by == "customer":
        return by_customer(spine.customer_id, count)
    return by_time(spine.as_of, spine.closes, spine.sort, count)


def by_customer(customer_id: Texts, count: int, salt: int = 0) -> list[Fold]:
    """No customer in two folds, nor on both sides of train and valid; who is where is a hash of the id.

    salt: another one is another hash. Whoever folds what a hash has parted already needs one that nobody used.
    """
    share = shares(hashes(customer_id, np.full(len(customer_id), salt, dtype=np.int64)))
    place = np.minimum((share * count).astype(np.int64), count - 1)
    folds = []
    for one in range(count):
        rest = np.mod(share - (one + 1) / count, 1.0) / (1 - 1 / count)  # of the other folds, in a ring: [0, 1)
        learned = place != one
        train, valid = learned & (rest < LEARNED), learned & (rest >= LEARNED)
        folds.append(Fold(*(np.flatnonzero(mask) for mask in (train, valid, learned, ~learned))))
    return _all_filled(folds, f"{len(np.unique(customer_id.astype(str)))} customers")


def by_time(as_of: Int64, closes: Int64, sort: Texts, count: int, first: int = 0) -> list[Fold]:
    """Blocks in order of time; a row is learned from where its label was known before the block begins.

    as_of, closes: int64 [n], µs. Where there are snapshots, borders lie on their moments. first: of the `count` blocks,
    the first that is judged.
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
    for begin, end in zip(begins[first:], ends[first:], strict=True):
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
