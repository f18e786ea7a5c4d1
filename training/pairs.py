"""Choices as pairs of a row and a candidate: what LightGBM learns from, and the masked softmax over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from features.schema import Bool, Float32, Float64
from serving.scorers import Index, Layout, pair_matrix
from training.examples import Examples

_ROWS = 65_536
"""For which random numbers are drawn at once."""


@dataclass(frozen=True)
class Pairs:
    """The available candidates of the examples that say something, one pair each, row after row.

    row, candidate: [k], indices into the examples and the candidates. start: [r], first pair of each of the r
    rows.
    group: [k], which of the r rows a pair belongs to. chosen: float64 [k]. weight: float64 [r], mean 1.
    outside: bool [r], whether the outside option is available. outside_chosen: float64 [r].
    offset: float64 [m], to be added to the candidates' utilities while these pairs are learned from.
    available: how many pairs there would be, had none been left out of the rows.
    """

    row: Index
    candidate: Index
    start: Index
    group: Index
    chosen: Float64
    weight: Float64
    outside: Bool
    outside_chosen: Float64
    offset: Float64
    available: int

    @classmethod
    def of(
        cls, examples: Examples, most: int | None = None, seed: int = 0, keep: Callable[[Bool], Float64] | None = None
    ) -> Pairs:
        """Pairs of all rows that offer a choice, or of a seeded sample of rows with about `most` pairs.

        keep: what is available [r, m] → with what probability each candidate stays in a row that did not choose it,
        float64 [m] (`training.alternatives`); None: all stay.
        """
        inside = examples.available[:, :-1]
        informative = inside.any(axis=1) & (examples.available.sum(axis=1) >= 2) & (examples.weight > 0)
        kept = np.flatnonzero(informative)
        chance = np.ones(inside.shape[1]) if keep is None else keep(inside[kept])
        draw = np.random.default_rng(seed)
        size = float((inside[kept].sum(axis=0) * chance).sum())
        if most is not None and size > most:
            kept = kept[draw.random(len(kept)) < most / size]
        available = int(inside[kept].sum())
        if chance.min(initial=1.0) < 1:
            inside = _left(inside, examples.chosen[:, :-1] > 0, chance, kept, draw)
            kept = kept[inside[kept].any(axis=1) & (inside[kept].sum(axis=1) + examples.available[kept, -1] >= 2)]
        local, candidate = np.nonzero(inside[kept])
        counts = inside[kept].sum(axis=1)
        weight = examples.weight[kept].astype(np.float64)
        return cls(
            row=kept[local],
            candidate=candidate.astype(np.int64),
            start=np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64),
            group=local.astype(np.int64),
            chosen=examples.chosen[kept[local], candidate].astype(np.float64),
            weight=weight / weight.mean() if len(weight) else weight,
            outside=examples.available[kept, -1],
            outside_chosen=examples.chosen[kept, -1].astype(np.float64),
            offset=-np.log(chance),
            available=available,
        )

    def __len__(self) -> int:
        return len(self.row)

    def by_candidate(self) -> Index:
        """[k], the pairs candidate after candidate, each in the order of the rows."""
        return np.argsort(self.candidate, kind="stable").astype(np.int64)


def _left(available: Bool, chosen: Bool, chance: Float64, rows: Index, draw: np.random.Generator) -> Bool:
    """What is left of `available` [n, m] in these rows: what was chosen, and others as they are drawn."""
    left = np.zeros_like(available)
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        drawn = draw.random((len(some), len(chance)), dtype=np.float32) < chance
        left[some] = available[some] & (chosen[some] | drawn)
    return left


class MaskedSoftmax:
    """Cross-entropy of the masked softmax over pairs, its gradient and a diagonal for its second derivatives."""

    def __init__(self, pairs: Pairs, outside_utility: float) -> None:
        self.pairs = pairs
        self.outside_utility = outside_utility
        options = np.diff(np.append(pairs.start, len(pairs)))
        # p (1 - p) alone understates the curvature where candidates trade places; k / (k - 1) makes it right for k
        # equally probable ones (Friedman, Hastie and Tibshirani 2000; LightGBM's multiclass objective does the same)
        self.factor = np.where(options > 1, options / np.maximum(options - 1, 1), 1.0)[pairs.group]
        self.pair_weight = pairs.weight[pairs.group]

    def shares(self, utilities: Float64) -> tuple[Float64, Float64]:
        """Probabilities of the pairs [k] and of the outside options [r] at the pairs' utilities [k]."""
        pairs = self.pairs
        top = np.maximum.reduceat(utilities, pairs.start)
        top = np.where(pairs.outside, np.maximum(top, self.outside_utility), top)
        powers = np.exp(utilities - top[pairs.group])
        alone = np.where(pairs.outside, np.exp(self.outside_utility - top), 0.0)
        total = np.add.reduceat(powers, pairs.start) + alone
        return powers / total[pairs.group], alone / total

    def gradient(self, utilities: Float64) -> tuple[Float64, Float64]:
        """First and (diagonal, scaled) second derivatives of the summed loss by the pairs' utilities, [k] each."""
        shares, _ = self.shares(utilities)
        return (
            self.pair_weight * (shares - self.pairs.chosen),
            self.pair_weight * shares * (1 - shares) * self.factor,
        )

    def loss(self, utilities: Float64) -> float:
        """Mean loss per row in nats, weighted, of utilities [k]."""
        shares, alone = self.shares(utilities)
        inside = self.pair_weight * self.pairs.chosen * np.log(np.maximum(shares, 1e-300))
        outside = self.pairs.weight * self.pairs.outside_chosen * np.log(np.maximum(alone, 1e-300))
        return -float((inside.sum() + outside.sum()) / self.pairs.weight.sum())

    def __call__(self, utilities: Float64, data: lightgbm.Dataset) -> tuple[Float64, Float64]:
        """LightGBM's objective; `utilities` are the trees' sum plus the prior, which is the pairs' init score."""
        return self.gradient(utilities)


class InOrder:
    """The objective of `softmax` for a data set whose lines are its pairs in another order [k]."""

    def __init__(self, softmax: MaskedSoftmax, order: Index) -> None:
        self.softmax = softmax
        self.order = order
        self.place = np.empty_like(order)
        self.place[order] = np.arange(len(order))

    def __call__(self, utilities: Float64, data: lightgbm.Dataset) -> tuple[Float64, Float64]:
        """First and second derivatives by the utilities, all [k] in the order of the lines."""
        first, second = self.softmax.gradient(np.take(utilities, self.place))
        return np.take(first, self.order), np.take(second, self.order)


class PairSequence(lightgbm.Sequence):
    """Pair lines made block by block while LightGBM bins them: the float matrix is never whole in memory.

    order: [k], which pair each line is; None = as they are.
    """

    batch_size = 16_384

    def __init__(
        self, examples: Examples, layout: Layout, prior: Float32, pairs: Pairs, order: Index | None = None
    ) -> None:
        self.blocks = layout.customer(examples.rows), layout.candidates(examples.rows)
        self.prior = prior
        self.row = pairs.row if order is None else pairs.row[order]
        self.candidate = pairs.candidate if order is None else pairs.candidate[order]
        self._near: tuple[int, Float64] = -1, np.empty((0, 0))

    def __getitem__(self, index: int | slice | Sequence[int]) -> npt.NDArray[np.floating[Any]]:
        if isinstance(index, (int, np.integer)):
            return self._line(int(index))
        return pair_matrix(*self.blocks, self.prior, self.row[index], self.candidate[index])

    def _line(self, index: int) -> Float64:
        """A sampled line, for the bins: LightGBM wants those one by one, in order, as float64."""
        block, place = divmod(index, self.batch_size)
        if self._near[0] != block:
            start = block * self.batch_size
            self._near = block, self[start : start + self.batch_size].astype(np.float64)
        line: Float64 = self._near[1][place]
        return line

    def __len__(self) -> int:
        return len(self.row)
