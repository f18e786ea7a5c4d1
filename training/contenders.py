"""Families side by side: each fitted on train and calibrated on valid, judged, and one of them chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from features.errors import InputError
from features.progress import Progress
from features.schema import Float64
from serving.choice import ChoiceModel
from training.dataset import Dataset
from training.evaluate import PRIOR, Comparison, baselines, better, clearly_better, clearly_worse, compare
from training.families import FAMILIES, Fitted
from training.fit_calibration import calibrate
from training.plan import Order
from training.settings import DEFAULTS
from training.tune import Tuned, tunable, tune


@dataclass(frozen=True)
class Contender:
    """A family fitted on train and calibrated on valid."""

    fitted: Fitted
    model: ChoiceModel
    tuned: Tuned | None = None
    calibrated: Mapping[str, float] = field(default_factory=dict)
    """How well its calibration does for customers that it was not fitted on."""


def families(asked: str) -> tuple[str, ...]:
    """The families to fit; the prior always is, as the measure of the others."""
    if asked == "all":
        return tuple(FAMILIES)
    if asked not in FAMILIES:
        raise InputError(f"families are {', '.join(FAMILIES)} or all, however {asked!r} was asked for")
    return tuple(dict.fromkeys((PRIOR, asked)))


def fit(name: str, parts: Mapping[str, Dataset], seed: int, progress: Progress, trials: int = 0) -> Contender:
    """Fit one family on train, stopped and calibrated on valid; trials: how many settings to try within train first."""
    train, valid = parts["train"], parts["valid"]
    question = train.question
    tuned = tune(name, train, trials, seed, progress) if trials and tunable(name) else None
    settings = tuned.settings if tuned else DEFAULTS
    fitted = FAMILIES[name].fit(question, train.examples, valid.examples, seed, progress, settings)
    # An occasion is asked "which", never "whether": only rows in which nothing could happen tell how likely it is.
    evidence = valid.take(valid.judged_for_probability)
    ranked = valid.take(valid.judged_for_ranking)
    found = calibrate(question, fitted.scorer, evidence.examples, evidence.customer_id, ranked)
    model = ChoiceModel(question, fitted.scorer, found.calibration, train.rows.schema)
    return Contender(fitted, model, tuned, found.numbers)


def judge_all(contenders: Mapping[str, Contender], learned: Dataset, part: Dataset, seed: int) -> dict[str, Comparison]:
    """Each contender against the prior and against counting, on one part."""
    scored: dict[str, Float64] = baselines(learned, part)
    against = (PRIOR, *scored)
    scored |= {name: contender.model.probabilities(part.rows, part.available) for name, contender in contenders.items()}
    shown = {name: {one: scored[one] for one in {name: 0, PRIOR: 0, **dict.fromkeys(against)}} for name in contenders}
    return {name: compare(name, shown[name], part, seed, against) for name in contenders}


def choose(
    order: Order, on_valid: Mapping[str, Comparison], on_test: Mapping[str, Comparison], metric: str
) -> tuple[str, str]:
    """The family to register and why: the best on valid, if it is surely better there than the prior.

    Test never picks a winner, but it may stop one: where times have changed so much that the winner is surely worse
    than the prior on the newest rows, the prior is what may be shipped.
    """
    if order.family != "all":
        return order.family, "asked for"
    values = {name: comparison.judged[name].values[metric] for name, comparison in on_valid.items()}
    best = PRIOR
    for name in values:
        best = name if better(metric, values[name], values[best]) else best
    if best == PRIOR:
        return PRIOR, f"no family has a better {metric} than the prior on the validation rows ({values[PRIOR]:.4f})"
    gap = on_valid[best].differences[PRIOR][metric]
    told = f"{metric} {values[best]:.4f} against {values[PRIOR]:.4f} of the prior, difference {gap.told()}"
    newest = on_test[best].differences[PRIOR][metric]
    if clearly_better(metric, gap) and clearly_worse(metric, newest):
        worse = f"yet it is surely worse than the prior on the newest rows, {newest.told()}"
        return PRIOR, f"{best} was best on the validation rows, {told}; {worse}"
    if clearly_better(metric, gap):
        return best, f"best on the validation rows: {told}"
    return PRIOR, f"no family is surely better than the prior on the validation rows; the best, {best}, has {told}"


def flat_test(comparison: Comparison, name: str) -> dict[str, float]:
    """The metrics of one model on test, by their plain names."""
    return {metric: value for metric, value in comparison.judged[name].values.items() if np.isfinite(value)}
