"""What rolling refits came to: pooled and block by block, with intervals by customer, as lines, a picture and a run.

The run lies in the experiment of the model, tagged nextbest.part=rolling; it registers nothing. Metrics:
rolling/<metric> of the model that is fitted again, rolling/<name>_<metric> of the others (frozen, refit_bias,
frozen_bias, rate), with _low and _high, and with _minus_frozen the paired difference; the same names under
rolling_block/ have a step per block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features.schema import Float64
from training import metrics, plots
from training.bootstrap import Interval, percentile, weights
from training.comparison.pooled import Sorted
from training.rolling import BIAS, FROZEN, RATE, REFIT, Rolled, Walk

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from training.dataset import Dataset
    from training.track import Run

MEASURED = (metrics.AUC, metrics.LOG_LOSS, metrics.BRIER)
GAPS = (metrics.ECE, metrics.WORST_GAP)
RESAMPLES = 400
NAMES = (REFIT, f"{REFIT}_{BIAS}", FROZEN, f"{FROZEN}_{BIAS}", RATE)
WORDS = {
    REFIT: "fitted again",
    f"{REFIT}_{BIAS}": "fitted again + online bias",
    FROZEN: "frozen",
    f"{FROZEN}_{BIAS}": "frozen + online bias",
    RATE: "recent rate alone",
}
WITHIN = "auc_within_blocks"
"""Mean of the blocks' AUC, weighted by pairs of what was taken and what was not: nothing is earned by knowing times."""
STYLES: tuple[dict[str, Any], ...] = (
    {"color": plots.ACCENT, "linewidth": 2.0},
    {"color": "#e8590c"},
    {"color": plots.INK, "linestyle": "--"},
)
SHOWN = NAMES[:3]


@dataclass(frozen=True)
class Told:
    """By name: intervals of MEASURED on all blocks, their differences to the frozen model; ECE, the largest gap and
    WITHIN; MEASURED block by block [b].
    """

    pooled: Mapping[str, Mapping[str, Interval]]
    minus_frozen: Mapping[str, Mapping[str, Interval]]
    gaps: Mapping[str, Mapping[str, float]]
    by_block: Mapping[str, Mapping[str, list[float]]]


def tell(rolled: Rolled, seed: int, resamples: int = RESAMPLES) -> Told:
    """Judge everything that was said; all names share the draws of customers, so differences are paired."""
    data = rolled.data
    codes, customers = pd.factorize(data.customer_id)
    ready = {name: Weighted.of(rolled.said[name], data) for name in NAMES}
    plain = {name: one.values(np.ones(len(data))) for name, one in ready.items()}
    draws = (weight for block in weights(len(customers), seed, resamples) for weight in block)
    drawn = np.array([[one.values(weight[codes]) for one in ready.values()] for weight in draws])  # [d, names, 3]
    frozen = NAMES.index(FROZEN)
    pooled, minus = {}, {}
    for place, name in enumerate(NAMES):
        pooled[name] = _intervals(plain[name], drawn[:, place])
        if name != FROZEN:
            minus[name] = _intervals(plain[name] - plain[FROZEN], drawn[:, place] - drawn[:, frozen])
    gaps = {name: metrics.calibration_gaps(*plots.pairs(rolled.said[name], data)) for name in NAMES}
    block = rolled.block_of
    parts = [data.take(np.flatnonzero(block == one)) for one in range(len(rolled.blocks))]
    by_block = {}
    for name in NAMES:
        said = [rolled.said[name][block == one] for one in range(len(parts))]
        found = [Weighted.of(q, part).values(np.ones(len(part))) for q, part in zip(said, parts, strict=True)]
        by_block[name] = {metric: [float(one[at]) for one in found] for at, metric in enumerate(MEASURED)}
        gaps[name][WITHIN] = _within(by_block[name][metrics.AUC], parts)
    return Told(pooled, minus, gaps, by_block)


@dataclass(frozen=True)
class Weighted:
    """One model's answers, ready to be measured under many weights of the rows."""

    pairs: Sorted
    log_loss: Float64
    brier: Float64

    @classmethod
    def of(cls, probabilities: Float64, data: Dataset) -> Weighted:
        judged = data.available & ~np.isnan(probabilities) & data.judged_for_probability[:, None]
        losses = metrics.pair_losses(probabilities, judged, data.taken)
        return cls(Sorted.of(probabilities, data.taken, judged), losses[metrics.LOG_LOSS], losses[metrics.BRIER])

    def values(self, weights: Float64) -> Float64:
        """MEASURED, float64 [3]; weights: float64 [n], how often each row counts."""
        _, positive, negative = self.pairs.sums(weights)
        counted = np.where(np.isnan(self.log_loss), 0.0, weights)
        total = counted.sum() or np.nan
        means = [float(counted @ np.nan_to_num(one) / total) for one in (self.log_loss, self.brier)]
        return np.array([metrics.auc_of_sums(positive, negative), *means])


def flat(told: Told) -> dict[str, float]:
    """What to log: `rolling/auc`, `rolling/frozen_auc_low`, ...; names as in the module's docstring."""
    found: dict[str, float] = {}
    for name in NAMES:
        stem = "rolling/" if name == REFIT else f"rolling/{name}_"
        for metric, interval in told.pooled[name].items():
            found |= interval.flat(f"{stem}{metric}")
        for metric, interval in told.minus_frozen.get(name, {}).items():
            found |= interval.flat(f"{stem}{metric}_minus_frozen")
        found |= {f"{stem}{metric}": value for metric, value in told.gaps[name].items()}
    return {key: value for key, value in found.items() if np.isfinite(value)}


def keep(run: Run, rolled: Rolled, told: Told, walk: Walk, drawn: Figure) -> None:
    """Log parameters, metrics, one step per block, and the picture."""
    from mlflow.entities import Metric

    blocks = rolled.blocks
    run.params({**asdict(walk), "model": rolled.data.question.model, "blocks": len(blocks), "rows": len(rolled.data)})
    run.params({"first_scored": blocks[0].start})
    run.metrics(flat(told))
    at = run.client.get_run(run.id).info.start_time
    steps = [("rolling_block/rounds", [float(block.rounds) for block in blocks])]
    steps += [("rolling_block/known", [float(block.known) for block in blocks])]
    for name in NAMES:
        stem = "rolling_block/" if name == REFIT else f"rolling_block/{name}_"
        steps += [(f"{stem}{metric}", values) for metric, values in told.by_block[name].items()]
    for name, values in steps:
        shown = [Metric(name, value, at, step) for step, value in enumerate(values) if np.isfinite(value)]
        run.client.log_batch(run.id, metrics=shown)
    run.figure(drawn, "plots/rolling.png")


def document(rolled: Rolled, told: Told) -> dict[str, Any]:
    """The answer for machines; NaN (a block in which nothing was taken) is null."""
    blocks = []
    for place, block in enumerate(rolled.blocks):
        said = {name: {metric: told.by_block[name][metric][place] for metric in MEASURED} for name in NAMES}
        shown = {name: {m: v if np.isfinite(v) else None for m, v in one.items()} for name, one in said.items()}
        blocks.append({**asdict(block), "takers": int(_takers(rolled)[place]), **shown})
    return {"rows": len(rolled.data), "metrics": flat(told), "blocks": blocks}


def lines(rolled: Rolled, told: Told, walk: Walk) -> list[str | Table]:
    """The answer for a person."""
    from training.terminal import table

    first, n = rolled.blocks[0], len(rolled.data)
    rows = []
    for name in NAMES:
        values, gaps = told.pooled[name], told.gaps[name]
        better = told.minus_frozen.get(name)
        rows.append(
            (WORDS[name], *(values[metric].told(".3f") for metric in MEASURED), f"{gaps[metrics.ECE]:.3f}",
             f"{gaps[WITHIN]:.3f}", "" if better is None else better[metrics.AUC].told("+.3f"))
        )  # fmt: skip
    pooled = table(
        f"{n:,} decisions in {len(rolled.blocks)} blocks, outcomes {walk.delay:,} decisions late",
        ("", "AUC", "log-loss", "Brier", "ECE", "AUC in blocks", "AUC minus frozen"), rows,
    )  # fmt: skip
    days = pd.to_datetime(rolled.data.spine.as_of, unit="us").strftime("%Y-%m-%d")
    starts = [block.start - first.start for block in rolled.blocks]
    takers = _takers(rolled)
    aucs = [told.by_block[name][metrics.AUC] for name in SHOWN]
    by_block = [
        (days[start], f"{block.known:,}", block.rounds, f"{takers[place] / (block.stop - block.start):.1%}",
         *(f"{auc[place]:.3f}" for auc in aucs))
        for place, (block, start) in enumerate(zip(rolled.blocks, starts, strict=True))
    ]  # fmt: skip
    columns = ("from", "learned from", "rounds", "taken", *(f"AUC {WORDS[name]}" for name in SHOWN))
    noted = f"the frozen model learned from the first {first.known:,} decisions and never again"
    return [pooled, noted, table("Block by block", columns, by_block)]


def picture(rolled: Rolled, told: Told, title: str) -> Figure:
    """AUC and log-loss by block: fitted again, with online bias, frozen; below, how many take."""
    drawn, upper = plots.figure(8.0, 7.0)
    upper.remove()
    axes = drawn.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.2))
    at = [block.start for block in rolled.blocks]
    labels = ("AUC within the block", "log-loss, nats")
    for panel, metric, label in zip(axes, (metrics.AUC, metrics.LOG_LOSS), labels, strict=False):
        for name, style in zip(SHOWN, STYLES, strict=True):
            told_of = f"{WORDS[name]} ({told.pooled[name][metric].mean:.3f} pooled)"
            panel.plot(at, told.by_block[name][metric], label=told_of, **style)
        panel.set_ylabel(label)
        panel.legend(frameon=False, fontsize=8)
    axes[0].axhline(0.5, color=plots.PALE, linewidth=1)
    size = [block.stop - block.start for block in rolled.blocks]
    axes[2].bar(at, _takers(rolled) / np.array(size), width=0.8 * size[0], color=plots.PALE)
    axes[2].set(ylabel="share taken", xlabel="decisions in order of time")
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=plots.INK)
    axes[0].set_title(title, loc="left", fontsize=11)
    return drawn


def _takers(rolled: Rolled) -> Float64:
    taken = rolled.data.taken.any(axis=1).astype(np.float64)
    return np.bincount(rolled.block_of, weights=taken, minlength=len(rolled.blocks)).astype(np.float64)


def _within(aucs: list[float], parts: list[Dataset]) -> float:
    """The blocks' AUC, weighted by pairs of what was taken and what was not; NaN where no block has both."""
    taken = np.array([part.taken.sum() for part in parts], dtype=np.float64)
    pairs = taken * (np.array([part.available.sum() for part in parts]) - taken)
    return float(np.nansum(pairs * aucs) / pairs.sum()) if pairs.any() else float("nan")


def _intervals(means: Float64, drawn: Float64) -> dict[str, Interval]:
    """means: [3]; drawn: [d, 3]."""
    values = np.concatenate([means[None, :], drawn])
    return {metric: percentile(values[:, place]) for place, metric in enumerate(MEASURED)}
