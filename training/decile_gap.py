"""The largest gap between what was said and what happened, by decile: is it more than chance alone would give?

The largest of ten gaps is never zero: where all probabilities are right, it is as large as the outcomes happened to
fall. So beside the gap stand its interval, by customer, and what chance gives: outcomes drawn from the probabilities
themselves, judged the same way. A gap within what chance gives says nothing against a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.schema import Bool, Float64
from training import metrics
from training.bootstrap import LEVEL, UNKNOWN, Interval, percentile, totals
from training.evaluate import Judgeable

DRAWS = 200


@dataclass(frozen=True)
class DecileGap:
    """gap: of the decile with the largest one, what was said more than happened or the other way, so its mean is
    above 0; its interval is by customer. chance: mean of the largest gap where every probability is right;
    chance_high: 95 % of draws stay below it. share: of the draws with a gap at least as large as the one seen.
    """

    gap: Interval
    chance: float
    chance_high: float
    share: float

    @property
    def flat(self) -> dict[str, float]:
        """As metrics of a run, by their names without the part."""
        by_chance = {"": self.chance, "_high": self.chance_high, "_or_more": self.share}
        found = {f"{metrics.WORST_GAP}_by_chance{name}": value for name, value in by_chance.items()}
        return self.gap.flat(metrics.WORST_GAP) | found

    def told(self) -> str:
        """For a person."""
        return (
            f"{self.gap.mean:.4f} [{self.gap.low:.4f}, {self.gap.high:.4f}]; right probabilities give "
            f"{self.chance:.4f} by chance, below {self.chance_high:.4f} in {LEVEL:.0%} of draws"
        )


def decile_gap(probabilities: Float64, data: Judgeable, seed: int, draws: int = DRAWS) -> DecileGap:
    """The largest gap of `metrics.calibration_gaps` over the pairs whose probabilities are judged.

    probabilities: float64 [n, m], calibrated. NaN throughout where nothing is judged. Chance draws rows independently
    of each other: one candidate of a row where exactly one happens; else each for itself, as several may be taken.
    """
    judged = data.available & ~np.isnan(probabilities) & data.judged_for_probability[:, None]
    row, column = np.nonzero(judged)
    if not len(row):
        return DecileGap(UNKNOWN, np.nan, np.nan, np.nan)
    order = np.argsort(probabilities[row, column], kind="stable")  # once: sorting what is sorted costs little
    row, column = row[order], column[order]
    scores, happened = probabilities[row, column], data.taken[row, column]
    said, share, count = metrics.reliability(scores, happened)
    worst = int(np.abs(said - share).argmax())
    start, stop = (int(one) for one in np.cumsum(np.append(0, count))[[worst, worst + 1]])
    off = scores[start:stop] - happened[start:stop]
    counted = (off, np.ones(len(off)))
    by_row = [np.bincount(row[start:stop], weights=one, minlength=len(data)) for one in counted]
    columns = np.stack(by_row, axis=1).astype(np.float64)  # [n, 2]
    sums = totals(columns, data.customer_id, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = sums[:, 0] / sums[:, 1]
    gap = percentile(np.sign(drawn[0]) * drawn) if drawn[0] else percentile(drawn)
    generator = np.random.default_rng(seed)
    one_of_all = data.question.link == "joint" and not data.question.outside
    said_of = np.where(judged, probabilities, 0.0)
    drawn_of = (outcomes(said_of, one_of_all, generator)[row, column] for _ in range(draws))
    chance = np.array([_largest(scores, happened) for happened in drawn_of])
    return DecileGap(gap, float(chance.mean()), float(np.quantile(chance, LEVEL)), float((chance >= gap.mean).mean()))


def outcomes(probabilities: Float64, one_of_all: bool, generator: np.random.Generator) -> Bool:
    """bool [n, m]: outcomes drawn from the probabilities [n, m], which are 0 where nothing can happen.

    one_of_all: exactly one of a row, whose probabilities sum to 1. Else each candidate for itself.
    """
    if not one_of_all:
        return np.asarray(generator.random(probabilities.shape) < probabilities)
    upto = np.cumsum(probabilities, axis=1)  # [n, m]
    drawn = generator.random(len(upto)) * upto[:, -1]
    choice = (drawn[:, None] >= upto).sum(axis=1)
    return np.asarray(choice[:, None] == np.arange(probabilities.shape[1]))


def _largest(scores: Float64, happened: Bool) -> float:
    return metrics.calibration_gaps(scores, happened)[metrics.WORST_GAP]
