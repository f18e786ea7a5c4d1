"""Calibration of every candidate on its own: a model may be right on the whole and wrong about each product.

Kept with the run as calibration/by_candidate.json and drawn as small multiples, the most frequently taken first.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import binomtest

from features.schema import Bool, Float64
from training import bootstrap, metrics
from training.bootstrap import Interval, intervals
from training.evaluate import Judgeable
from training.plots import ACCENT, INK, PALE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "calibration"
FILE = "by_candidate.json"
BINS = 5
"""Of equal mass; single candidates have few pairs."""
MOST_DRAWN = 24
ACROSS = 4


@dataclass(frozen=True)
class CandidateCalibration:
    """One candidate on the rows whose probabilities are judged.

    pairs: rows in which it was available. predicted: mean probability. rate: share of them in which it was taken. gap:
    predicted - rate, with a 95 % interval. ece, worst_gap: over bins. reliability: (mean probability, share taken,
    pairs) per bin. Numbers are null where nothing is judged.
    """

    candidate: str
    pairs: int
    taken: int
    predicted: float | None
    rate: float | None
    gap: float | None
    gap_low: float | None
    gap_high: float | None
    ece: float | None
    worst_gap: float | None
    reliability: tuple[tuple[float, float, int], ...]


def by_candidate(probabilities: Float64, data: Judgeable, seed: int) -> tuple[CandidateCalibration, ...]:
    """Every candidate, in the order of the question. probabilities: float64 [n, m], calibrated.

    The interval of a gap is the wider one, at each end, of the bootstrap by customer and of Clopper and Pearson (1934):
    where hardly anything was taken, drawing customers again cannot show what might have been taken.
    """
    judged = data.available & ~np.isnan(probabilities) & data.judged_for_probability[:, None]
    gaps = np.where(judged, probabilities - data.taken, np.nan)
    names = data.question.candidates
    spread = intervals({name: gaps[:, at] for at, name in enumerate(names)}, data.customer_id, seed)
    found = []
    for at, name in enumerate(names):
        scores, happened = probabilities[judged[:, at], at], data.taken[judged[:, at], at]
        mean, share, count = metrics.reliability(scores, happened, BINS)
        off = np.abs(mean - share)
        gap = _wider(spread[name], scores, happened)
        found.append(
            CandidateCalibration(
                name,
                len(scores),
                int(happened.sum()),
                float(scores.mean()) if len(scores) else None,
                float(happened.mean()) if len(scores) else None,
                *_known(gap),
                float(np.average(off, weights=count)) if len(off) else None,
                float(off.max()) if len(off) else None,
                tuple(zip(mean.tolist(), share.tolist(), count.astype(int).tolist(), strict=True)),
            )
        )
    return tuple(found)


def _wider(drawn: Interval, scores: Float64, happened: Bool) -> Interval:
    """The interval of the gap that also holds the exact one of the rate, for the mean score as it is."""
    if not len(scores):
        return drawn
    low, high = binomtest(int(happened.sum()), len(happened)).proportion_ci(bootstrap.LEVEL, "exact")
    predicted = float(scores.mean())
    return Interval(drawn.mean, min(drawn.low, predicted - high), max(drawn.high, predicted - low))


def _known(gap: Interval) -> tuple[float | None, float | None, float | None]:
    mean, low, high = (value if np.isfinite(value) else None for value in (gap.mean, gap.low, gap.high))
    return mean, low, high


def save(found: tuple[CandidateCalibration, ...], path: Path) -> None:
    """Write JSON: {"bins", "candidates": [...]} in the order of the question."""
    document = {"bins": BINS, "candidates": [asdict(one) for one in found]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[CandidateCalibration, ...]:
    """What `save` wrote."""
    raw = json.loads(path.read_text(encoding="utf-8"))["candidates"]
    return tuple(
        CandidateCalibration(**{**one, "reliability": tuple((a, b, int(n)) for a, b, n in one["reliability"])})
        for one in raw
    )


def draw(found: tuple[CandidateCalibration, ...], title: str) -> Figure:
    """A small reliability plot per candidate; those taken most often, where there are many."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judged = [one for one in found if one.pairs]
    shown = sorted(judged, key=lambda one: -one.taken)[:MOST_DRAWN]
    down = max(1, -(-len(shown) // ACROSS))
    drawn = Figure(figsize=(2.6 * ACROSS, 2.3 * down + 0.7), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(down, ACROSS, squeeze=False).ravel()
    for axis, one in zip(axes, shown, strict=False):
        _draw_one(axis, one)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    more = f", {len(shown)} of {len(judged)} candidates, most taken first" if len(shown) < len(judged) else ""
    drawn.suptitle(f"{title}: share taken by mean predicted probability{more}", x=0.01, ha="left", fontsize=11)
    return drawn


def _draw_one(axis: Any, one: CandidateCalibration) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    mean, share, count = (np.array(column, dtype=np.float64) for column in zip(*one.reliability, strict=True))
    spread = [
        binomtest(round(rate * n), int(n)).proportion_ci(bootstrap.LEVEL, "wilson")
        for rate, n in zip(share, count, strict=True)
    ]
    low, high = np.array([(found.low, found.high) for found in spread]).T
    right = float(max(mean.max(), 1e-4)) * 1.1
    top = max(right, float(high.max()) * 1.05)
    axis.plot([0, top], [0, top], color=PALE, linewidth=1)
    error = np.maximum([share - low, high - share], 0.0)
    axis.errorbar(mean, share, yerr=error, color=ACCENT, marker="o", markersize=3.5, linewidth=1.2, capsize=1.5)
    axis.set(xlim=(0, right), ylim=(0, top))
    for side, end in ((axis.xaxis, right), (axis.yaxis, top)):
        side.set_major_formatter(PercentFormatter(1.0, decimals=0 if end > 0.1 else 1 if end > 0.01 else 2))
        side.set_major_locator(MaxNLocator(3))
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(colors=INK, labelsize=7)
    sure = one.gap_low is not None and one.gap_high is not None and (one.gap_low > 0 or one.gap_high < 0)
    gap = f"gap {one.gap:+.2%}{' (sure)' if sure else ''}, {one.taken:,} of {one.pairs:,}"
    axis.set_title(f"{one.candidate[:26]}\n{gap}", loc="left", fontsize=8, color=INK)
