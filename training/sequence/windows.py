"""Windows over tokens: which part of a history a row is answered from, and batches of windows of like length.

A row is answered from the newest tokens that it may know. All rows of a customer that share a window are answered by
one pass over it, as each looks only at its own prefix. Windows begin at multiples of half their length, so a row sees
more than half of `length` tokens and at most all of them, or all there are. Where its window begins depends on nothing
but how many tokens it may know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.schema import Bool, Float32, Float64, Int64, Texts
from training.sequence.tokens import Tokens
from training.sequence.vocabulary import WAVES, Encoded, gap_bins, waves

ASKED_WAVES = WAVES + 1
"""Columns that describe the moment of a row: its waves, and how many tokens it may know."""
COLD_ROWS = 64
"""Rows without a token that share an empty window."""


@dataclass(frozen=True)
class Asked:
    """n rows and what they may know.

    start, stop: int64 [n], their customers' tokens [start, stop). at: float64 [n], seconds. gap: int64 [n], bin of the
    time since the newest token. waves: float32 [n, ASKED_WAVES]. facts: float32 [n, C], the customer columns of the
    rows, NaN unknown.
    """

    start: Int64
    stop: Int64
    at: Float64
    gap: Int64
    waves: Float32
    facts: Float32

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def of(cls, tokens: Tokens, customer_id: Texts, as_of: Int64, facts: Float32, time_zone: str) -> Asked:
        start, stop = tokens.known_to(customer_id, as_of)
        some = stop > start
        newest = tokens.known[np.maximum(stop - 1, 0)] if len(tokens) else np.zeros(len(as_of), np.int64)
        gap = np.where(some, (as_of - newest) / 1e6, np.nan)
        count = np.log1p(stop - start).astype(np.float32)[:, None] / np.float32(10)
        shown = np.concatenate([waves(gap, as_of, time_zone), count], axis=1)
        return cls(start, stop, as_of / 1e6, gap_bins(gap), shown, facts)

    def take(self, index: Int64 | Bool) -> Asked:
        return Asked(
            self.start[index], self.stop[index], self.at[index], self.gap[index], self.waves[index], self.facts[index]
        )


@dataclass(frozen=True)
class Windows:
    """w windows: tokens [begin, end), and which rows they answer: `row` [n] in order of window, `ends` int64 [w]."""

    begin: Int64
    end: Int64
    row: Int64
    ends: Int64

    def __len__(self) -> int:
        return len(self.begin)

    @classmethod
    def over(cls, asked: Asked, length: int) -> Windows:
        """The windows of all rows; length: tokens of a window, even and at least 2."""
        if length < 2 or length % 2:
            raise ValueError(f"a window has an even number of tokens, at least 2, however it has {length}")
        half = length // 2
        known = asked.stop - asked.start
        begin = asked.start + half * np.maximum(-(-known // half) - 2, 0)
        cold = known <= 0  # they share windows without a token
        begin[cold] = -1 - np.arange(int(cold.sum())) // COLD_ROWS
        order = np.lexsort((asked.stop, begin)).astype(np.int64)
        first = np.flatnonzero(np.diff(begin[order], prepend=np.iinfo(np.int64).min // 2))
        ends = np.append(first[1:], len(order)).astype(np.int64)
        last = order[ends - 1] if len(order) else order
        return cls(np.maximum(begin[order[first]], 0), np.where(known > 0, asked.stop, 0)[last], order, ends)

    @property
    def starts(self) -> Int64:
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)


@dataclass(frozen=True)
class Batch:
    """b windows, padded at the end to t tokens and q rows.

    fields: int64 [b, t, FIELDS]. waves: float32 [b, t, WAVES]. seconds: float64 [b, t], since the window's first token.
    told: bool [b, t], no padding. asked_gap: int64 [b, q]. asked_waves: float32 [b, q, ASKED_WAVES]. asked_seconds:
    float64 [b, q], since the window's first token. facts: float32 [b, q, C]. knows: int64 [b, q], how many of the
    window's tokens each row may know. row: int64 [b, q], which row it is, -1 padding.
    """

    fields: Int64
    waves: Float32
    seconds: Float64
    told: Bool
    asked_gap: Int64
    asked_waves: Float32
    asked_seconds: Float64
    facts: Float32
    knows: Int64
    row: Int64

    @property
    def tokens(self) -> int:
        return int(self.told.sum())


def batch(asked: Asked, encoded: Encoded, windows: Windows, chosen: Int64, multiple: int = 1) -> Batch:
    """The batch of the windows `chosen`; lengths are padded to a multiple, so that compiled code sees few shapes."""
    begin, end = windows.begin[chosen], windows.end[chosen]
    starts, rows = windows.starts[chosen], windows.ends[chosen] - windows.starts[chosen]
    t, q = (_up(max(int(most.max(initial=0)), 1), multiple) for most in (end - begin, rows))
    place = begin[:, None] + np.arange(t)
    told = place < end[:, None]  # [b, t]
    place = np.where(told, place, 0)
    if not len(encoded.seconds):
        encoded = Encoded(
            np.zeros((1, encoded.fields.shape[1]), np.int64), np.zeros((1, WAVES), np.float32), np.zeros(1)
        )
    first = np.where(told[:, :1], encoded.seconds[place[:, :1]], 0.0)  # [b, 1]
    which = starts[:, None] + np.arange(q)
    real = which < windows.ends[chosen][:, None]  # [b, q]
    row = windows.row[np.where(real, which, 0)]
    cold = asked.stop[row] <= asked.start[row]
    knows = np.where(real & ~cold, asked.stop[row] - begin[:, None], 0)
    return Batch(
        np.where(told[:, :, None], encoded.fields[place], 0),
        np.where(told[:, :, None], encoded.waves[place], np.float32(0)),
        np.where(told, encoded.seconds[place] - first, 0.0),
        told,
        asked.gap[row],
        asked.waves[row],
        np.where(knows > 0, asked.at[row] - first, 0.0),
        asked.facts[row],
        knows.astype(np.int64),
        np.where(real, row, -1),
    )


def batches(windows: Windows, tokens: int, rows: int, shuffle: np.random.Generator | None = None) -> Iterator[Int64]:
    """Windows in batches of at most `tokens` padded tokens and `rows` padded rows, but one window at least.

    Windows of like length share a batch. shuffle: which of them, and the order of batches; None: always the same.
    """
    lengths, counts = windows.end - windows.begin, windows.ends - windows.starts
    order = np.arange(len(windows)) if shuffle is None else shuffle.permutation(len(windows))
    bucket = np.ceil(np.log2(np.maximum(lengths, 1))) * 64 + np.ceil(np.log2(counts))
    order = order[np.argsort(bucket[order], kind="stable")]
    found: list[Int64] = []
    at = 0
    while at < len(order):
        most = np.maximum.accumulate(lengths[order[at : at + max(tokens, rows)]])
        wide = np.maximum.accumulate(counts[order[at : at + max(tokens, rows)]])
        many = np.arange(1, len(most) + 1)
        fits = int(((np.maximum(most, 1) * many <= tokens) & (wide * many <= rows)).argmin())
        whole = ((np.maximum(most, 1) * many <= tokens) & (wide * many <= rows)).all()
        size = len(most) if whole else max(fits, 1)
        found.append(order[at : at + size].astype(np.int64))
        at += size
    if shuffle is not None:
        found = [found[place] for place in shuffle.permutation(len(found))]
    yield from found


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
