"""Fit the map from raw to calibrated probabilities, on examples that the scorer has not learned from.

Which map is chosen by cross-fitting over customers: each map is fitted on four fifths of them and judged on the rest,
so the choice, and what is told of its quality, come from customers that the map has not seen. From the plainest map on,
another one is taken where its cross-fitted log-loss is lower by more than its standard error (the one-standard-error
rule, Breiman et al. 1984, "Classification and Regression Trees", 3.4.3): so no map is worse than none at all.

A map that differs by candidate changes who comes first. Better probabilities on all days may be a worse order at the
moment of a purchase: on real baskets the log-loss fell and so did HR@3, by 0.015. So such a map is taken only where the
order of what was taken, cross-fitted too, is no worse than before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from features.schema import Float64, Int64, Texts
from serving.calibration import Calibration
from serving.choice import Question, Scorer
from training import metrics
from training.bootstrap import intervals
from training.calibration_maps import FEWEST, MAPS, TEMPERATURES, Evidence
from training.dataset import Dataset
from training.examples import Examples
from training.stable import hashes

FOLDS = 5
MOST_PAIRS = 400_000
"""Evenly spaced rows with about so many pairs are enough: the maps have few parameters."""

BY_CANDIDATE = ("beta by candidate",)
"""Those that change the order of candidates, and what their order is judged by."""
ORDER = (metrics.HR_AT_3, metrics.MAP_AT_7)


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and how well its kind does for customers that it was not fitted on.

    numbers: log_loss, ece and worst_gap, cross-fitted; the same of the raw scores with _raw; log_loss_minus_raw with
    _low and _high, by customer. Empty where there is too little evidence.
    """

    calibration: Calibration
    numbers: Mapping[str, float] = field(default_factory=dict)


def fit_calibration(
    question: Question, scorer: Scorer, examples: Examples, customers: Texts | None = None
) -> Calibration:
    """The calibration of `calibrate` alone."""
    return calibrate(question, scorer, examples, customers).calibration


def calibrate(
    question: Question,
    scorer: Scorer,
    examples: Examples,
    customers: Texts | None = None,
    ranked: Dataset | None = None,
) -> Calibrated:
    """Calibration of `scorer` on `examples`, later in time than those it learned from. customers: [n]; None: one a row.

    Where "none of them" is an answer: maps of (probability, taken) over the available candidates of the rows that
    could choose it (of all rows where none could). Elsewhere: temperatures, which keep the sum at 1. Kind "none" where
    there is too little evidence; `Calibration.evidence` says so. ranked: rows of the same time whose order counts.
    """
    evidence = _evidence(question, scorer, examples, customers)
    if evidence.few:
        told = f"{evidence.told}: fewer than {FEWEST}"
        return Calibrated(Calibration("none", evidence=told))
    maps = TEMPERATURES if evidence.alone else MAPS
    fold = _folds(evidence.customer)
    found = {name: [_fitted(one, evidence.take(fold != part)) for part in range(FOLDS)] for name, one in maps.items()}
    said = {name: _said(found[name], evidence.raw, fold) for name in maps}
    losses = {name: evidence.losses(values) for name, values in said.items()}
    best = _chosen(losses, evidence.customer)
    if best in BY_CANDIDATE and ranked is not None and _order_suffers(found[best], question, scorer, ranked):
        best = _chosen({name: loss for name, loss in losses.items() if name not in BY_CANDIDATE}, evidence.customer)
    numbers = _numbers(evidence, said[best], losses[best], losses["identity"])
    gain = f"cross-fitted log-loss {numbers['log_loss']:.5f}, {numbers['log_loss_raw']:.5f} raw"
    return Calibrated(replace(maps[best](evidence), evidence=f"{evidence.told}; {gain}"), numbers)


def _folds(customers: Texts) -> Int64:
    """Which fold each customer is in, int64 [n]; not by the hash that parts customers into train, valid and test."""
    ids = np.char.add("fold ", customers.astype(str)).astype(object)
    return (hashes(ids) % np.uint64(FOLDS)).astype(np.int64)


def _fitted(fit: Callable[[Evidence], Calibration], evidence: Evidence) -> Calibration:
    return Calibration("identity") if evidence.few else fit(evidence)


def _said(found: Sequence[Calibration], raw: Float64, fold: Int64) -> Float64:
    """What each fold's calibration says of its own rows, float64 [n, m]."""
    said = np.full(raw.shape, np.nan)
    for part, calibration in enumerate(found):
        said[fold == part] = calibration.apply(raw[fold == part])
    return said


def _order_suffers(found: Sequence[Calibration], question: Question, scorer: Scorer, rows: Dataset) -> bool:
    """Whether what was taken stands lower than by the raw scores, for customers that each map was not fitted on."""
    raw = question.probabilities(scorer.utilities(rows.rows), rows.available)
    said = _said(found, raw, _folds(rows.customer_id))
    before, after = (metrics.ranking(values, rows.available, rows.taken) for values in (raw, said))
    return any(np.nansum(after[name] - before[name]) < 0 for name in ORDER)


def _evidence(question: Question, scorer: Scorer, examples: Examples, customers: Texts | None) -> Evidence:
    customers = np.arange(len(examples)).astype(str) if customers is None else customers
    alone = question.link == "joint" and not question.outside
    asked = np.arange(len(examples))
    if question.outside and examples.available[:, -1].any():
        asked = np.flatnonzero(examples.available[:, -1])
    examples, customers = examples.take(asked), customers[asked]
    raw = question.probabilities(scorer.utilities(examples.rows), examples.available[:, :-1])  # [n, m]
    sizes = np.isfinite(raw).sum(axis=1)
    told = (examples.weight > 0) & (sizes >= (2 if alone else 1))
    taken = examples.chosen[:, :-1] > 0 if examples.taken is None else examples.taken
    kept = np.flatnonzero(told)[:: max(1, int(sizes[told].sum()) // MOST_PAIRS)]
    weight = examples.weight.astype(np.float64)
    weight = weight / weight[kept].mean() if len(kept) else weight
    chosen = examples.chosen[:, :-1].astype(np.float64)
    return Evidence(raw, taken & np.isfinite(raw), chosen, weight, customers, alone).take(kept)


def _chosen(losses: Mapping[str, Float64], customers: Texts) -> str:
    """From the first map on, each that beats the one chosen before it by more than the standard error."""
    codes, found = pd.factorize(customers)
    best = next(iter(losses))
    for name, loss in losses.items():
        gain = np.bincount(codes, weights=losses[best] - loss, minlength=len(found))
        error = float(np.sqrt(((gain - gain.mean()) ** 2).sum()))
        best = name if gain.sum() > max(error, 0.0) else best
    return best


def _numbers(evidence: Evidence, said: Float64, loss: Float64, raw_loss: Float64) -> dict[str, float]:
    counted = evidence.counted
    happened = evidence.taken[counted]
    numbers = {"log_loss": float(loss.mean()), "log_loss_raw": float(raw_loss.mean())}
    for suffix, values in (("", said), ("_raw", evidence.raw)):
        gaps = metrics.calibration_gaps(values[counted], happened)
        numbers |= {f"{name}{suffix}": gap for name, gap in gaps.items()}
    gap = intervals({"log_loss_minus_raw": loss - raw_loss}, evidence.customer, 0)["log_loss_minus_raw"]
    return numbers | gap.flat("log_loss_minus_raw")
