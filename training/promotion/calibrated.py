"""Take-ups predicted over take-ups seen: overall, within bins of probability, and within groups of customers.

1 = calibrated in the large. Unlike a gap of probabilities, a ratio means the same for a rare product and a usual one:
with probabilities twice too high it is 2 everywhere. A group's ratio is taken over that of all other customers, so that
it tells whether the group is treated like the others, whatever has become of the level of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.schema import Bool, Float64
from training.bootstrap import Interval, totals
from training.metrics import BINS
from training.predictions import Predictions
from training.promotion import fairness, resampled

OVERALL, BIN = "overall", "bin"


@dataclass(frozen=True)
class Cell:
    """Where it was looked: kind OVERALL, BIN or the name of a slice; name: which bin or group."""

    kind: str
    name: str


@dataclass(frozen=True)
class Levels:
    """Ratios of k cells for several models, in the same draws; those of groups over that of all others.

    ratios: model → float64 [1 + draws, k]; the first row is that of the data, NaN where fewer than FEWEST_TAKEN
    take-ups are seen and predicted.
    """

    cells: Sequence[Cell]
    ratios: dict[str, Float64]

    def interval(self, name: str, place: int) -> Interval:
        """At the level for all cells of the kind at once; slices are one kind."""
        return resampled.interval_of_ratio(self.ratios[name][:, place], self._among(place))

    def excess(self, name: str, place: int, other: str, beside: int) -> Interval:
        """How much further from 1 `name` is at `place` than `other` at `beside`, as a factor: 1 = as far."""
        with np.errstate(invalid="ignore", divide="ignore"):
            further = np.abs(np.log(self.ratios[name][:, place])) - np.abs(np.log(self.ratios[other][:, beside]))
        return resampled.interval_of_ratio(np.exp(further), self._among(place))

    def _among(self, place: int) -> int:
        """Of how many cells that can be told this one is looked at."""
        kinds = (self.overall, self.bins, self.groups)
        first = next(iter(self.ratios.values()))[0]
        return next(int(np.isfinite(first[kind]).sum()) for kind in kinds if place in kind)

    def what(self, place: int) -> str:
        """What the ratio there is, in words."""
        cell = self.cells[place]
        if cell.kind == OVERALL:
            return "take-ups predicted over seen are"
        if cell.kind == BIN:
            return f"in bin {cell.name} take-ups predicted over seen are"
        return f"take-ups predicted over seen, over the same of all others, in {cell.kind} {cell.name} are"

    @property
    def overall(self) -> list[int]:
        return [k for k, cell in enumerate(self.cells) if cell.kind == OVERALL]

    @property
    def bins(self) -> list[int]:
        return [k for k, cell in enumerate(self.cells) if cell.kind == BIN]

    @property
    def groups(self) -> list[int]:
        return [k for k, cell in enumerate(self.cells) if cell.kind not in (OVERALL, BIN)]


def levels(data: Predictions, names: Sequence[str], seed: int) -> Levels:
    """The ratios of the models called `names`, each with bins of its own probabilities and the same groups."""
    data = fairness.judged(data)
    found = list(fairness.groups(data))
    masks = [np.ones(len(data), np.bool_), *(rows for _, _, rows in found)]
    cells = [Cell(OVERALL, ""), *(Cell(kind, group) for kind, group, _ in found)]
    cells += [Cell(BIN, f"{place + 1} of {BINS}") for place in range(BINS)]
    columns = []
    for name in names:
        predicted, seen = fairness.expected(data, name), fairness.happened(data)
        of_bins = _bins(data, name)
        columns += [np.stack([predicted * mask for mask in masks], axis=1), of_bins[0]]
        columns += [np.stack([seen * mask for mask in masks], axis=1), of_bins[1]]
    drawn = totals(np.concatenate(columns, axis=1), data.customer_id, seed)
    ratios = {}
    for place, name in enumerate(names):
        predicted, seen = (drawn[:, (2 * place + part) * len(cells) :][:, : len(cells)] for part in (0, 1))
        found_here = np.where(_few(predicted, seen), np.nan, resampled.ratio(predicted, seen))
        groups = slice(1, 1 + len(found))
        others = predicted[:, :1] - predicted[:, groups], seen[:, :1] - seen[:, groups]
        beside = np.where(_few(*others), np.nan, resampled.ratio(*others))
        found_here[:, groups] = resampled.ratio(found_here[:, groups], beside)
        ratios[name] = found_here
    return Levels(cells, ratios)


def _few(predicted: Float64, seen: Float64) -> Bool:
    """Of the sums [1 + draws, k]: cells with too few take-ups to tell, bool [k]."""
    return np.asarray(np.maximum(predicted[0], seen[0]) < fairness.FEWEST_TAKEN, dtype=np.bool_)


def _bins(data: Predictions, name: str) -> tuple[Float64, Float64]:
    """Take-ups predicted and seen per row and bin of equal mass, float64 [n, BINS] each; ties stay together."""
    said = np.where(data.available, data.probabilities[name], np.nan)
    rows, columns = np.nonzero(~np.isnan(said))
    scores = said[rows, columns]
    if not len(scores):
        return np.zeros((len(data), BINS)), np.zeros((len(data), BINS))
    ordered = np.sort(scores)
    borders = ordered[np.arange(1, BINS) * len(ordered) // BINS]
    cell = rows * BINS + np.searchsorted(borders, scores, side="right")
    size = len(data) * BINS
    happened = (data.taken & data.available)[rows, columns].astype(np.float64)
    predicted = np.bincount(cell, weights=scores, minlength=size).astype(np.float64)
    seen = np.bincount(cell, weights=happened, minlength=size).astype(np.float64)
    return predicted.reshape(-1, BINS), seen.reshape(-1, BINS)
