"""What folds came to: pooled over all rows and fold by fold, with intervals by customer, as lines and as a run.

The run lies in the experiment of the model, tagged nextbest.part=folds, with the names and artefacts of a training run:
test/<metric> of the pooled rows, test/<metric>_minus_<other> with _low and _high, predictions/test.parquet,
calibration/, plots/. Besides, test/<metric>_low and _high of the model itself, for means over rows and both AUCs, and
test/worst_calibration_gap_low, _high, _by_chance, _by_chance_high, _by_chance_or_more (`decile_gap`). A nested run per
fold (nextbest.part=fold) has test/ of its own rows. Nothing is registered, no alias moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from features.schema import Float64
from training import metrics
from training.bootstrap import Interval, intervals, percentile, weights
from training.comparison.pooled import RESAMPLES, Sorted
from training.decile_gap import DecileGap, decile_gap
from training.evaluate import Comparison, compare
from training.fold_rows import By
from training.folds import Folded
from training.kept import keep_said
from training.predictions import MODEL
from training.report import CHANCES, RANKED
from training.terminal import metric_rows, table

if TYPE_CHECKING:
    from rich.table import Table

    from training.dataset import Dataset
    from training.plan import Order
    from training.track import Run, Tracking

AUCS = (metrics.AUC, metrics.AUC_BY_CANDIDATE)


@dataclass(frozen=True)
class Told:
    """Pooled rows judged, and each fold's. own: metric → interval of MODEL. aucs_minus: other → AUCs, MODEL - other."""

    pooled: Comparison
    by_fold: tuple[Comparison, ...]
    own: Mapping[str, Interval]
    aucs_minus: Mapping[str, Mapping[str, Interval]]
    gap: DecileGap


def tell(folded: Folded, seed: int, resamples: int = RESAMPLES) -> Told:
    """Judge what was said of all rows together, and of each fold."""
    data, shown = folded.data, told_apart(folded)
    against = tuple(name for name in shown if name != MODEL)
    by_fold = []
    for place in range(len(folded.fits)):
        index = np.flatnonzero(folded.fold == place)
        part = {name: values[index] for name, values in shown.items()}
        by_fold.append(compare(MODEL, part, data.take(index), seed, against))
    aucs, aucs_minus = auc_intervals(shown, data, seed, resamples)
    pooled = compare(MODEL, shown, data, seed, against)
    own = intervals(pooled.judged[MODEL].per_row, data.customer_id, seed) | aucs
    return Told(pooled, tuple(by_fold), own, aucs_minus, decile_gap(shown[MODEL], data, seed))


def told_apart(folded: Folded) -> dict[str, Float64]:
    """What was said without the family that is the model in every fold, which is MODEL already."""
    chosen = {one.family for one in folded.fits}
    return {name: values for name, values in folded.said.items() if {name} != chosen}


def auc_intervals(
    said: Mapping[str, Float64], data: Dataset, seed: int, resamples: int = RESAMPLES
) -> tuple[dict[str, Interval], dict[str, dict[str, Interval]]]:
    """Both AUCs of MODEL, and other → MODEL minus other; customers are drawn, all share the draws."""
    codes, customers = pd.factorize(data.customer_id)
    ready = [Aucs.of(values, data) for values in said.values()]
    drawn = [np.stack([one.values(np.ones(len(data))) for one in ready])]
    for block in weights(len(customers), seed, resamples):
        drawn += [np.stack([one.values(weight[codes]) for one in ready]) for weight in block]
    values = dict(zip(said, np.stack(drawn, axis=1), strict=True))  # name → [1 + draws, 2]
    own = values.pop(MODEL)
    return _percentiles(own), {name: _percentiles(own - other) for name, other in values.items()}


@dataclass(frozen=True)
class Aucs:
    """One model's pairs, ready for AUCs under many weights of the rows: all pairs, and those of each candidate."""

    pairs: Sorted
    by_candidate: tuple[Sorted, ...]

    @classmethod
    def of(cls, probabilities: Float64, data: Dataset) -> Aucs:
        judged = data.available & ~np.isnan(probabilities) & data.judged_for_probability[:, None]
        columns = np.arange(judged.shape[1])
        each = (Sorted.of(probabilities, data.taken, judged & (columns == one)) for one in columns)
        return cls(Sorted.of(probabilities, data.taken, judged), tuple(each))

    def values(self, weights: Float64) -> Float64:
        """In the order of AUCS, float64 [2]. weights: float64 [n], how often each row counts."""
        sums = [one.sums(weights)[1:] for one in (self.pairs, *self.by_candidate)]
        pooled, *aucs = (metrics.auc_of_sums(*one) for one in sums)
        happened = np.array([positive.sum() for positive, _ in sums[1:]])
        known = ~np.isnan(aucs)
        mean = np.average(np.array(aucs)[known], weights=happened[known]) if known.any() else np.nan
        return np.array([pooled, mean])


def _percentiles(drawn: Float64) -> dict[str, Interval]:
    return {name: percentile(drawn[:, place]) for place, name in enumerate(AUCS)}


def flat(told: Told) -> dict[str, float]:
    """What to log of the pooled rows; names as in the module's docstring."""
    found = told.pooled.flat(MODEL, "test")
    for metric, interval in told.own.items():
        found |= interval.flat(f"test/{metric}")
    for other, aucs in told.aucs_minus.items():
        for metric, interval in aucs.items():
            found |= interval.flat(f"test/{metric}_minus_{other}")
    found |= {f"test/{name}": value for name, value in told.gap.flat.items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def keep(run: Run, tracking: Tracking, experiment: str, folded: Folded, told: Told, order: Order, by: By) -> None:
    """Log parameters, metrics, predictions and pictures of all rows, and a nested run per fold."""
    data = folded.data
    run.params(
        {
            "model": order.model,
            "family": order.family,
            "horizon_days": data.question.horizon_days,
            "attribution": order.attribution,
            "until": None if order.until is None else order.until.isoformat(),
            "seed": order.seed,
            "folds": len(folded.fits),
            "by": by,
            "entities": 0 if order.entities is None else len(order.entities),
            "rows": len(data),
            "customers": len(set(data.customer_id.tolist())),
        }
    )
    run.metrics(flat(told))
    keep_said(run, data, told_apart(folded), None, f"{order.family}, {len(folded.fits)} folds", order.seed)
    for place, (fit, comparison) in enumerate(zip(folded.fits, told.by_fold, strict=True)):
        tags = {"nextbest.part": "fold", "nextbest.family": fit.family, "nextbest.reason": fit.reason}
        with tracking.run(experiment, f"fold {place + 1}", tags, parent=run.id) as child:
            child.params({"fold": place + 1, **{f"rows_{part}": count for part, count in fit.rows.items()}})
            child.params({f"rounds_{name}": rounds for name, rounds in fit.rounds.items()})
            child.params({f"calibration_{name}": kind for name, kind in fit.calibration.items()})
            child.metrics(comparison.flat(MODEL, "test") | {"cost/fit_seconds": fit.seconds})


def document(folded: Folded, told: Told) -> dict[str, Any]:
    """The answer for machines."""
    by_fold = [
        {**asdict(fit), "metrics": comparison.flat(MODEL, "test")}
        for fit, comparison in zip(folded.fits, told.by_fold, strict=True)
    ]
    return {"rows": len(folded.data), "metrics": flat(told), "folds": by_fold}


def lines(folded: Folded, told: Told, by: By) -> list[str | Table]:
    """The answer for a person."""
    data, pooled = folded.data, told.pooled
    shown = (*RANKED, *CHANCES) if data.question.block == "product" else CHANCES
    values = {_named(folded, name): judged.values for name, judged in pooled.judged.items()}
    values = {name: values[name] for name in (_named(folded, MODEL), *values)}
    way = "by customer" if by == "customer" else "by time"
    title = f"{len(data):,} rows of {len(set(data.customer_id.tolist())):,} customers in {len(folded.fits)} folds {way}"
    found: list[str | Table] = [table(title, ("", *shown), metric_rows(values, shown))]
    first = metrics.HR_AT_3 if data.question.block == "product" else metrics.LOG_LOSS
    named = (first, *AUCS)
    found.append(", ".join(f"{metric} {told.own[metric].told('.4f')}" for metric in named))
    for other, gaps in pooled.differences.items():
        minus = {**gaps, **told.aucs_minus[other]}
        found.append(f"minus {other}: {', '.join(f'{metric} {minus[metric].told()}' for metric in named)}")
    found.append(f"largest calibration gap by decile: {told.gap.told()}")
    rows = [
        (f"fold {place + 1}", fit.family, fit.rounds[fit.family], f"{fit.rows['train']:,}", f"{fit.rows['valid']:,}",
         f"{fit.rows['test']:,}", *(comparison.judged[MODEL].values[name] for name in (first, AUCS[1])))
        for place, (fit, comparison) in enumerate(zip(folded.fits, told.by_fold, strict=True))
    ]  # fmt: skip
    columns = ("", "family", "rounds", "train", "valid", "judged", first, AUCS[1])
    return [*found, table("Fold by fold", columns, rows, numbers_from=2)]


def _named(folded: Folded, name: str) -> str:
    chosen = sorted({one.family for one in folded.fits})
    if name != MODEL:
        return name
    return chosen[0] if len(chosen) == 1 else f"chosen per fold ({', '.join(chosen)})"
