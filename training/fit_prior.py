"""The prior: how often each option is chosen when it can be chosen, as log-utilities.

The intercepts of a masked softmax, fitted by the MM algorithm for choices from sets (Hunter 2004, "MM
algorithms for generalized Bradley-Terry models", Annals of Statistics 32; section 5 gives choices from sets
of any size):

    theta_k <- W_k / E_k,   W_k = sum of weight * chosen_k,   E_k = sum over choices that offer k of weight /
    sum theta

Popularity is thereby divided by exposure. Candidates with little exposure are drawn to the candidates' common
rate by a Gamma prior (Caron and Doucet 2012, "Efficient Bayesian inference for generalized Bradley-Terry
models", section 2), worth `EVIDENCE` choices. Where candidates have groups, each is drawn to its group's rate, and
that to the common one, so a product without a history stands where its group's sales put it. The outside option is
not drawn anywhere, so its average probability is the observed rate.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from features.progress import SILENT, Progress
from features.schema import Float32, Float64
from serving.choice import Question
from serving.scorers import Layout, PriorScorer
from training.examples import Examples, log_loss
from training.families import Fitted, require_examples

EVIDENCE = 1.0
"""Choices that the common rate is worth."""

HALF_LIVES_DAYS = (None, 730.0, 365.0, 180.0, 90.0, 30.0)
"""How fast old choices are forgotten; None = never. The validation examples choose."""

FORGETTING_PAYS = 1e-3
"""Share of the log-loss by which forgetting has to win over never forgetting."""

ITERATIONS = 2000
TOLERANCE = 1e-9
DAY = 86_400.0


def fit(question: Question, train: Examples, valid: Examples, seed: int = 0, progress: Progress = SILENT) -> Fitted:
    """Fit the prior; the half-life that predicts `valid` best is taken. Deterministic: `seed` changes nothing."""
    require_examples(question, training=train, validation=valid)
    started = time.perf_counter()
    with progress.step("prior", 1) as advance:
        half_life = choose_half_life(train, valid)
        fitted = _fitted(question, train, half_life, started)
        advance(1)
    return fitted


def refit(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    """Fit the prior on `train` with the half-life of `like`."""
    require_examples(question, training=train)
    return _fitted(question, train, half_life_of(like), time.perf_counter())


def half_life_of(like: Fitted) -> float | None:
    """The prior's half-life in days that an earlier fit chose, whatever its family; None = never forgets."""
    days = float(like.params["prior_half_life_days"])
    return days if days > 0 else None


def prior_params(half_life: float | None) -> dict[str, bool | int | float | str]:
    """The prior's choices as plain values; half-life 0 = never forgets."""
    return {"prior_half_life_days": half_life or 0.0, "prior_evidence": EVIDENCE}


def choose_half_life(train: Examples, valid: Examples) -> float | None:
    """The half-life in days with the lowest log-loss on `valid`; None (never forget) unless forgetting clearly wins."""
    if train.at is None:
        return None
    losses = {}
    for half_life in HALF_LIVES_DAYS:
        prior = log_popularity(train, half_life)
        losses[half_life] = log_loss(np.tile(prior, (len(valid), 1)), valid)
    best = min(losses, key=lambda half_life: losses[half_life])
    return best if losses[best] < losses[None] * (1 - FORGETTING_PAYS) else None


def log_popularity(examples: Examples, half_life_days: float | None = None) -> Float32:
    """Log-utilities, float32 [m + 1], centred on the candidates' mean; see the module's formula."""
    patterns, chosen, weight = _by_pattern(forgetting(examples, half_life_days))
    inside = np.arange(chosen.size) < chosen.size - 1
    group = np.array([*(examples.groups or (0,) * (chosen.size - 1)), -1])  # [m + 1]
    group[-1] = group.max() + 1
    offered = patterns.T @ weight > 0  # [m + 1]
    theta = np.ones(chosen.size)
    for _ in range(ITERATIONS):
        exposure = patterns.T @ (weight / (patterns @ theta))  # [m + 1]
        common = max(chosen[inside].sum(), 1e-3) / max(exposure[inside].sum(), 1e-12)
        of_group = (np.bincount(group, chosen) + EVIDENCE) / (np.bincount(group, exposure) + EVIDENCE / common)
        rate = of_group[group]  # [m + 1]
        drawn = np.where(inside, EVIDENCE, 0.0)
        updated = (chosen + drawn) / np.maximum(exposure + drawn / rate, 1e-12)
        updated = np.where(offered | inside, np.maximum(updated, 1e-9 * common), common)
        updated /= np.exp(np.log(updated[inside]).mean())
        moved = np.abs(np.log(updated / theta)).max()
        theta = updated
        if moved < TOLERANCE:
            break
    return np.log(theta).astype(np.float32)


def _by_pattern(examples: Examples) -> tuple[Float64, Float64, Float64]:
    """Distinct choice sets [g, m + 1], weight chosen per option [m + 1], weight per choice set [g]."""
    packed = np.packbits(examples.available, axis=1)  # [n, bytes], in the order of the rows themselves
    _, first, group = np.unique(_sortable(packed), axis=0, return_index=True, return_inverse=True)
    patterns = examples.available[first]
    weight = np.bincount(group.ravel(), weights=examples.weight, minlength=len(patterns))
    chosen = (examples.chosen * examples.weight[:, None]).sum(axis=0, dtype=np.float64)
    total = weight.sum()
    count = np.count_nonzero(examples.weight)
    scale = count / total  # weights count as choices: their mean is 1, so that EVIDENCE has a meaning
    return patterns.astype(np.float64), chosen * scale, weight * scale


def _sortable(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Rows of bytes [n, b] as numbers [n] of the same order where they fit into one: those sort much faster."""
    if packed.shape[1] > 8:
        return packed
    wide = np.zeros((len(packed), 8), dtype=np.uint8)
    wide[:, : packed.shape[1]] = packed
    return wide.view(">u8")[:, 0].astype(np.uint64)


def forgetting(examples: Examples, half_life_days: float | None) -> Examples:
    """The examples with the weight of old choices halved every so many days; None = as they are."""
    if half_life_days is None or examples.at is None:
        return examples
    age = (examples.at.max() - examples.at) / DAY
    kept = np.exp2(-age / half_life_days).astype(np.float32)
    return replace(examples, weight=examples.weight * kept)


def _fitted(question: Question, train: Examples, half_life: float | None, started: float) -> Fitted:
    prior = log_popularity(train, half_life)
    scorer = PriorScorer(Layout.of(question, train.rows.schema), prior)
    return Fitted(scorer, 0, time.perf_counter() - started, prior_params(half_life))
