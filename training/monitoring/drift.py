"""Drift: are today's rows and scores still those that the model was judged on?

The population stability index of a column over its bins (Siddiqi 2006, "Credit Risk Scorecards", 6):

    PSI = Σ (qᵢ − pᵢ) · ln(qᵢ / pᵢ)         p: shares of the reference, q: shares now

Customs call 0.1 a moderate and 0.25 a large shift, whatever the samples. Yet without any shift PSI is about
(1/N + 1/M) · χ² with b − 1 degrees of freedom (Yurdakul 2018, "Statistical properties of population stability index",
3.2), for N and M independent customers in b bins: 0.1 is usual in a hundred of them and impossible in a million. So a
column has drifted where its PSI reaches MODERATE *and* the chance of as much without a shift is small, corrected for
the number of columns (Holm 1979): the chance of any false alarm is at most ALPHA.

A column that moved as far between the rows that the model learned from and those it was judged on has not drifted
either: it always moves, and the model was measured under that.

Half a row is added to every bin (Jeffreys), so that an empty one gives no infinity. Neighbouring bins in which fewer
than FEWEST of either sample would be expected are joined first, for the approximation needs about five (Cochran 1954).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import chi2

from features.schema import Float64, Int64, Rows
from serving.question import Question
from training.monitoring.histogram import Histogram
from training.monitoring.reference import Reference, columns_of, scores_of

MODERATE, LARGE = 0.1, 0.25
ALPHA = 0.05
FEWEST = 5.0
HALF = 0.5
COLUMN, SCORE = "feature", "score"


@dataclass(frozen=True)
class Drift:
    """One column then and now.

    what: COLUMN or SCORE. psi: NaN where there are too few rows, or all in one bin. chance: p-value of as much without
    a shift, corrected for all columns that were tested. labels, then, present: [b], the bins and their shares.
    customers: of the present sample. moment: whether it only tells when was asked, and so never drifts.
    usual: PSI between the rows that were learned from and those judged on; 0 where that is not told.
    """

    name: str
    what: str
    psi: float
    chance: float
    labels: tuple[str, ...]
    then: tuple[float, ...]
    present: tuple[float, ...]
    customers: float
    moment: bool = False
    usual: float = 0.0

    @property
    def drifted(self) -> bool:
        """Whether it is large enough to matter, more than usual, and surely not by chance."""
        return not self.moment and self.psi >= max(MODERATE, self.usual) and self.chance < ALPHA

    @property
    def why_not(self) -> str:
        """Why a PSI that looks large is no drift, in words; empty where it looks small, or is one."""
        if self.drifted or not self.psi >= MODERATE:
            return ""
        if self.moment:
            return "tells of the moment only"
        return "always moves" if self.chance < ALPHA else "may be chance"

    @property
    def most_moved(self) -> str:
        """The bin that moved most, in words: "missing: 2 % then, 40 % now"."""
        gap = np.abs(np.array(self.present) - np.array(self.then))
        place = int(np.argmax(gap))
        return f"{self.labels[place]}: {self.then[place]:.1%} then, {self.present[place]:.1%} now"


def psi(reference_shares: Float64, now_shares: Float64) -> float:
    """The index of two distributions over the same bins, float64 [b] each, positive and summing to 1."""
    return float(((now_shares - reference_shares) * np.log(now_shares / reference_shares)).sum())


def smoothed(counts: Float64) -> Float64:
    """Shares of counts [b] with half a row added to each bin: positive, summing to 1."""
    return np.asarray((counts + HALF) / (counts.sum() + HALF * len(counts)))


def index_and_chance(then: Float64, now: Float64) -> tuple[float, float]:
    """PSI of counts in the same bins (float64 [b] each, missing last), and its p-value where nothing has shifted.

    NaN, NaN where no two bins have enough rows to be compared.
    """
    group = joined(then, now)
    first, second = (np.bincount(group, weights=counts).astype(np.float64) for counts in (then, now))
    if len(first) < 2:
        return np.nan, np.nan
    found = psi(smoothed(first), smoothed(second))
    scale = 1.0 / then.sum() + 1.0 / now.sum()
    return found, float(chi2.sf(found / scale, len(first) - 1))


def joined(then: Float64, now: Float64) -> Int64:
    """int64 [b]: the group of each bin, so that FEWEST or more of the smaller sample are expected in every group.

    Neighbours are joined; what is missing, the last bin, is joined only where it is itself too rare.
    """
    total = then.sum() + now.sum()
    smaller = min(then.sum(), now.sum())
    expected = (then + now) * (smaller / total if total else 0.0)
    group = np.zeros(len(then), dtype=np.int64)
    place, held = 0, 0.0
    for position, amount in enumerate(expected[:-1]):
        if held >= FEWEST:
            place, held = place + 1, 0.0
        group[position] = place
        held += amount
    if held < FEWEST and place:
        group[group == place] = place - 1
        place -= 1
    group[-1] = place + 1 if expected[-1] >= FEWEST and expected[:-1].sum() >= FEWEST else place
    return group


def drift_of(reference: Histogram, now: Float64, what: str) -> Drift:
    """One column against its reference; now: float64 [b], counts in its bins. The chance is of this column alone."""
    then = np.array(reference.shares) * reference.rows
    enough = min(then.sum(), now.sum()) > 0
    found, chance = index_and_chance(then, now) if enough else (np.nan, np.nan)
    shares = now / now.sum() if now.sum() else now
    usual = 0.0
    if reference.before is not None and any(reference.before) and then.sum() > 0:
        usual = psi(smoothed(np.array(reference.before) * reference.rows), smoothed(then))
    return Drift(
        reference.name,
        what,
        found,
        chance,
        reference.labels,
        reference.shares,
        tuple(shares.tolist()),
        float(now.sum()),
        reference.moment,
        usual,
    )


def drifts(
    reference: Reference, rows: Rows, probabilities: Float64, question: Question, weight: Float64 | None = None
) -> list[Drift]:
    """Every column and score of rows now against the reference, most drifted first.

    probabilities: float64 [n, m], what the model of the reference says of these rows, NaN where not available.
    weight: float64 [n], so that each customer counts for one; None: each row is another customer.
    """
    weight = np.ones(len(rows)) if weight is None else weight
    columns, scores = columns_of(rows, question), scores_of(probabilities, question)
    found = [
        drift_of(one, one.counts(columns[one.name], weight), COLUMN) for one in reference.columns if one.name in columns
    ]
    for one in reference.scores:
        values = scores.get(one.name, np.full(len(rows), np.nan))
        known = np.isfinite(values)
        found.append(drift_of(one, one.counts(values[known], weight[known]), SCORE))
    return by_size(found)


def between(then: Reference, now: Reference) -> list[Drift]:
    """Columns and scores that two references share, most drifted first; as far as their bins can be compared.

    For two runs, whose own rows are not at hand. Bins of one are laid over those of the other (`Histogram.shares_of`).
    """
    found = []
    for what, before, after in ((COLUMN, then.columns, now.columns), (SCORE, then.scores, now.scores)):
        named = {one.name: one for one in after}
        for one in before:
            other = named.get(one.name)
            shares = None if other is None else one.shares_of(other)
            if other is not None and shares is not None:
                found.append(drift_of(one, shares * other.rows, what))
    return by_size(found)


def by_size(found: Sequence[Drift]) -> list[Drift]:
    """The largest PSI first, with chances corrected for how many were tested; untested ones and moments last."""
    watched = [one for one in found if not one.moment and not np.isnan(one.chance)]
    corrected = holm(np.array([one.chance for one in watched]))
    chances = {id(one): float(chance) for one, chance in zip(watched, corrected, strict=True)}
    told = [replace(one, chance=chances.get(id(one), one.chance)) for one in found]
    return sorted(told, key=lambda one: (not one.drifted, one.moment, np.isnan(one.psi), -np.nan_to_num(one.psi)))


def holm(chances: Float64) -> Float64:
    """p-values [k] corrected so that the chance of any false alarm keeps its level (Holm 1979)."""
    order = np.argsort(chances)
    corrected = np.maximum.accumulate(chances[order] * np.arange(len(chances), 0, -1)) if len(chances) else chances
    found = np.empty(len(chances))
    found[order] = np.minimum(corrected, 1.0)
    return found
