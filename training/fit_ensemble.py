"""The ensemble of what the other families fitted: equal weights, nobody in it who is surely worse than the prior.

In a training run the members are fitted already and are taken as they are (`of`); `fit` alone fits them first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Float64
from serving.choice import Question
from serving.ensemble import EnsembleScorer
from serving.question import masked_log_softmax
from serving.scorers import Layout
from training.examples import Examples
from training.families import FAMILIES, Fitted, require_examples
from training.fit_prior import half_life_of, log_popularity, prior_params

NAME, PRIOR = "ensemble", "prior"
ERRORS = 2.0
"""Standard errors by which a member's log-loss has to lie above the prior's for it to be surely worse."""


def fit(question: Question, train: Examples, valid: Examples, seed: int = 0, progress: Progress = SILENT) -> Fitted:
    """Fit the prior and every other family, and average those that are not surely worse than the prior on `valid`."""
    require_examples(question, training=train, validation=valid)
    started = time.perf_counter()
    fitted = {
        name: family.fit(question, train, valid, seed, progress) for name, family in FAMILIES.items() if name != NAME
    }
    ensemble = of(question, train, members(fitted, valid), fitted[PRIOR])
    return replace(ensemble, seconds=time.perf_counter() - started)


def refit(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    """Fit every member again with its own rounds."""
    require_examples(question, training=train)
    started = time.perf_counter()
    again = {part.scorer.family: FAMILIES[part.scorer.family].refit(question, train, part, seed) for part in like.parts}
    prior = FAMILIES[PRIOR].refit(question, train, like, seed)
    return replace(of(question, train, again, prior), seconds=time.perf_counter() - started)


def of(question: Question, train: Examples, fitted: Mapping[str, Fitted], prior: Fitted) -> Fitted:
    """The ensemble of fitted families; its seconds are theirs. prior: of the same examples, for its half-life."""
    if not fitted:
        raise InputError("an ensemble needs a member, however every family is surely worse than the prior")
    half_life = half_life_of(prior)
    layout = Layout.of(question, train.rows.schema)
    scorer = EnsembleScorer(layout, log_popularity(train, half_life), [one.scorer for one in fitted.values()])
    params = {**prior_params(half_life), "members": ", ".join(fitted), "rows_used": len(train)}
    seconds = sum(one.seconds for one in fitted.values())
    return Fitted(scorer, 0, seconds, params, _importance(fitted), tuple(fitted.values()))


def members(fitted: Mapping[str, Fitted], valid: Examples) -> dict[str, Fitted]:
    """Those of the fitted families, the prior left out, whose log-loss on `valid` is not surely above the prior's."""
    prior = _losses(fitted[PRIOR], valid)
    kept = {}
    for name, one in fitted.items():
        if name in (PRIOR, NAME):
            continue
        more = _losses(one, valid) - prior
        if more.mean() <= ERRORS * more.std() / np.sqrt(len(more)):
            kept[name] = one
    return kept


def _losses(fitted: Fitted, examples: Examples) -> Float64:
    """Weighted log-loss of every row, float64 [n]."""
    log_shares = masked_log_softmax(fitted.scorer.utilities(examples.rows), examples.available)
    losses = -(examples.chosen * np.where(examples.chosen > 0, log_shares, 0.0)).sum(axis=1)
    return np.asarray(losses * examples.weight, dtype=np.float64)


def _importance(fitted: Mapping[str, Fitted]) -> dict[str, float] | None:
    """The mean of the members' shares; None where a member does not tell, as it may live on any column."""
    told = [one.importance for one in fitted.values()]
    known = [one for one in told if one is not None]
    if len(known) < len(told):
        return None
    names = dict.fromkeys(name for one in known for name in one)
    return {name: sum(one.get(name, 0.0) for one in known) / len(known) for name in names}
