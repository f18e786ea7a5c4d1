"""Families side by side: each fitted on train and calibrated on valid, and judged on a part, asked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from features.errors import InputError
from features.progress import Progress
from features.schema import Float64
from serving.choice import ChoiceModel
from training.dataset import Dataset
from training.evaluate import PRIOR, Comparison, Judgement, baselines
from training.families import FAMILIES, Fitted
from training.fit_calibration import calibrate
from training.ladder import ENSEMBLE
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
    """The families to fit, in order; the prior always is, as the measure of the others.

    An ensemble comes with its members.
    """
    if asked in ("all", ENSEMBLE):
        return tuple(FAMILIES)
    if asked not in FAMILIES:
        raise InputError(f"families are {', '.join(FAMILIES)} or all, however {asked!r} was asked for")
    return tuple(dict.fromkeys((PRIOR, asked)))


def fit_all(
    asked: str, parts: Mapping[str, Dataset], seed: int, progress: Progress, trials: int = 0
) -> dict[str, Contender]:
    """The contenders of an order, by name. The ensemble averages the others, as they were fitted."""
    found: dict[str, Contender] = {}
    for name in families(asked):
        if name != ENSEMBLE:
            found[name] = fit(name, parts, seed, progress, trials)
    if ENSEMBLE in families(asked):
        together = _together({name: one.fitted for name, one in found.items()}, parts, asked)
        if together is not None:
            found[ENSEMBLE] = calibrated(together, parts)
    return found


def fit(name: str, parts: Mapping[str, Dataset], seed: int, progress: Progress, trials: int = 0) -> Contender:
    """Fit one family on train, stopped and calibrated on valid; trials: how many settings to try within train first."""
    train, valid = parts["train"], parts["valid"]
    tuned = tune(name, train, trials, seed, progress) if trials and tunable(name) else None
    settings = tuned.settings if tuned else DEFAULTS
    fitted = FAMILIES[name].fit(train.question, train.examples, valid.examples, seed, progress, settings)
    return calibrated(fitted, parts, tuned)


def calibrated(fitted: Fitted, parts: Mapping[str, Dataset], tuned: Tuned | None = None) -> Contender:
    """A fitted family as a model that speaks of probabilities."""
    train, valid = parts["train"], parts["valid"]
    question = train.question
    # An occasion is asked "which", never "whether": only rows in which nothing could happen tell how likely it is.
    evidence = valid.take(valid.judged_for_probability)
    ranked = valid.take(valid.judged_for_ranking)
    found = calibrate(question, fitted.scorer, evidence.examples, evidence.customer_id, ranked)
    model = ChoiceModel(question, fitted.scorer, found.calibration, train.rows.schema)
    return Contender(fitted, model, tuned, found.numbers)


def _together(fitted: Mapping[str, Fitted], parts: Mapping[str, Dataset], asked: str) -> Fitted | None:
    """The ensemble; None where fewer than two could be in it and it was not asked for by name."""
    from training.fit_ensemble import members, of

    train, chosen = parts["train"], members(fitted, parts["valid"].examples)
    if len(chosen) < 2 and asked != ENSEMBLE:
        return None
    return of(train.question, train.examples, chosen, fitted[PRIOR])


def judge_all(contenders: Mapping[str, Contender], learned: Dataset, part: Dataset, seed: int) -> Judgement:
    """What each contender, and counting, says of one part, and how well."""
    said: dict[str, Float64] = {
        name: contender.model.probabilities(part.rows, part.available) for name, contender in contenders.items()
    }
    return Judgement.of(said, baselines(learned, part), part, seed)


def flat_test(comparison: Comparison, name: str) -> dict[str, float]:
    """The metrics of one model on test, by their plain names."""
    return {metric: value for metric, value in comparison.judged[name].values.items() if np.isfinite(value)}
