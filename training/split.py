"""Learn on the past, choose on what came next, test on what came last; nothing that was decided later looks back.

Embargo: a row belongs to a part only when its label was known before the next part begins. Rows whose window crosses
a border are dropped, as their label tells of the time that follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.errors import InputError
from features.schema import Float64, Int64, Texts
from training.labels import DAY
from training.stable import hashes, shares

SHARES = (0.70, 0.15, 0.15)
"""Aimed at: train, valid, test."""
NEWEST = 0.2
"""Aimed at: the newest part of train, where settings are tuned."""
CANDIDATE_BORDERS = 100


@dataclass(frozen=True)
class Split:
    """Positions of rows, int64. embargoed: rows in no part. borders: µs at which valid and test begin, if by time."""

    train: Int64
    valid: Int64
    test: Int64
    embargoed: int
    borders: tuple[int, int] | None


def by_time(as_of: Int64, closes: Int64, sort: Texts, grid: Int64 | None = None) -> Split:
    """Split by time with an embargo.

    as_of, closes: int64 [n], µs. grid: moments at which borders may lie (snapshots are only there); None: anywhere.
    Borders are those for which every part, of every sort of rows, comes nearest to its share after the embargo.
    Raises InputError where some part would stay empty.
    """
    quantiles = np.linspace(0.01, 0.99, CANDIDATE_BORDERS - 1)
    anywhere = np.quantile(as_of, quantiles, method="lower") if len(as_of) else np.array([])
    borders = np.unique(np.asarray(anywhere if grid is None else grid, dtype=np.int64))
    worst = np.full((len(borders), len(borders)), np.inf)
    for name in np.unique(sort.astype(str)):
        worst = np.minimum(worst, _fullness(as_of[sort == name], closes[sort == name], borders))
    worst[np.tril_indices(len(borders))] = -1.0
    if not worst.size or worst.max() <= 0:
        days = (int(closes.max()) - int(as_of.min())) / DAY if len(as_of) else 0
        raise InputError(
            f"learning, choosing and testing need three periods whose windows do not overlap, however the "
            f"{len(as_of)} rows span {days:.0f} days; use a shorter --horizon, more data, or --split customer"
        )
    first, second = np.unravel_index(int(worst.argmax()), worst.shape)
    begin_valid, begin_test = int(borders[first]), int(borders[second])
    train = np.flatnonzero(closes <= begin_valid)
    valid = np.flatnonzero((as_of >= begin_valid) & (closes <= begin_test))
    test = np.flatnonzero(as_of >= begin_test)
    embargoed = len(as_of) - len(train) - len(valid) - len(test)
    return Split(train, valid, test, embargoed, (begin_valid, begin_test))


def newest(as_of: Int64, closes: Int64, sort: Texts) -> tuple[Int64, Int64]:
    """Positions of the older rows and of the newest, with an embargo between them; both empty where no border parts.

    as_of, closes: int64 [n], µs. The border is that for which both, of every sort of rows, come nearest to their share.
    """
    quantiles = np.linspace(0.01, 0.99, CANDIDATE_BORDERS - 1)
    names = np.unique(sort.astype(str))
    found = [np.quantile(as_of[sort == name], quantiles, method="lower") for name in names]
    borders = np.unique(np.concatenate([*found, np.array([])]).astype(np.int64))
    worst = np.full(len(borders), np.inf)
    for name in names:
        opened, closed = np.sort(as_of[sort == name]), np.sort(closes[sort == name])
        older = np.searchsorted(closed, borders, side="right") / ((1 - NEWEST) * len(opened))
        later = (len(opened) - np.searchsorted(opened, borders, side="left")) / (NEWEST * len(opened))
        worst = np.minimum(worst, np.minimum(older, later))
    if not len(borders) or worst.max() <= 0:
        nothing = np.array([], dtype=np.int64)
        return nothing, nothing
    border = borders[int(worst.argmax())]
    return np.flatnonzero(closes <= border), np.flatnonzero(as_of >= border)


def _fullness(as_of: Int64, closes: Int64, borders: Int64) -> Float64:
    """float64 [b, b]: for each pair of borders, the part furthest below its share, as rows / (share x all rows)."""
    train = np.searchsorted(np.sort(closes), borders, side="right")
    test = len(as_of) - np.searchsorted(np.sort(as_of), borders, side="left")
    order = np.argsort(closes, kind="stable")
    as_of, closes = as_of[order], closes[order]
    valid = np.array([np.searchsorted(closes[as_of >= border], borders, side="right") for border in borders])
    shape = (len(borders), len(borders))
    parts = (np.broadcast_to(train[:, None], shape), valid.reshape(shape), np.broadcast_to(test[None, :], shape))
    fullness = [part / (share * max(len(as_of), 1)) for part, share in zip(parts, SHARES, strict=True)]
    return np.asarray(np.minimum.reduce(fullness))


def by_customer(customer_id: Texts) -> Split:
    """No customer on both sides; who is where is a hash of the id. Says nothing about drift: prefer time."""
    share = shares(hashes(customer_id))
    later, last = share >= SHARES[0], share >= SHARES[0] + SHARES[1]
    train, valid, test = (np.flatnonzero(mask) for mask in (share < SHARES[0], later & ~last, last))
    if not (len(train) and len(valid) and len(test)):
        count = len(np.unique(customer_id.astype(str)))
        raise InputError(f"a split by customer needs customers in each part, however there are {count}; bring more")
    return Split(train, valid, test, embargoed=0, borders=None)
