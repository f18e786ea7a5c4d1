"""Back-off counts: which keys to count by, how far to believe them, and the counts themselves.

Starting from the prior, the key is added that promises most on the later part of the training examples, counted on the
earlier part; then the next, counted against what is expected by then (`count_search`). A key is one fact, or a fact
within a key that is there already. How many of the keys are used is chosen by the validation examples; counts are of
all examples then (`count_tables`).
"""

from __future__ import annotations

import time

import numpy as np

from features.progress import SILENT, Progress
from serving.choice import Question
from serving.count_keys import Key
from serving.counts_scorer import CountsScorer
from serving.scorers import Layout
from training.count_facts import told
from training.count_search import Search
from training.count_tables import counted
from training.examples import Examples, log_loss
from training.families import Fitted, require_examples
from training.fit_prior import choose_half_life, forgetting, half_life_of, log_popularity, prior_params

MOST_KEYS = 12


def fit(question: Question, train: Examples, valid: Examples, seed: int = 0, progress: Progress = SILENT) -> Fitted:
    """Choose keys within `train`, count on all of it; `valid` chooses how many keys. Deterministic."""
    require_examples(question, training=train, validation=valid)
    started = time.perf_counter()
    half_life = choose_half_life(train, valid)
    layout = Layout.of(question, train.rows.schema)
    with progress.step("counts", MOST_KEYS) as advance:
        search = Search.of(layout, train, half_life)
        while len(search.keys) < MOST_KEYS and search.add():
            advance(1)
    scorer = _all_counted(layout, train, tuple(search.keys), half_life)
    best = _fewest_losses(scorer, valid)
    return _fitted(scorer, best, half_life, len(train), started, tuple(search.gains))


def refit(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    """Count on `train` by the first `rounds` keys of `like`."""
    require_examples(question, training=train)
    started = time.perf_counter()
    if not isinstance(like.scorer, CountsScorer):
        raise ValueError(f"counts are refitted like counts, however {like.scorer.family} was given")
    half_life = half_life_of(like)
    scorer = _all_counted(like.scorer.layout, train, like.scorer.keys[: like.rounds], half_life)
    return _fitted(scorer, len(scorer.keys), half_life, len(train), started, ())


def _all_counted(layout: Layout, train: Examples, keys: tuple[Key, ...], half_life: float | None) -> CountsScorer:
    """The tables of all keys, each counted against what those before it make expected."""
    prior = log_popularity(train, half_life)
    train = forgetting(train, half_life)
    customer, candidates = layout.customer(train.rows), layout.candidates(train.rows)
    utilities = np.tile(prior, (len(train), 1))
    tables = []
    for key in keys:
        table, utilities = counted(key, key.codes(customer, candidates), train, utilities)
        tables.append(table)
    return CountsScorer(layout, prior, keys, tables)


def _fewest_losses(scorer: CountsScorer, valid: Examples) -> int:
    """With how many of its keys the log-loss on `valid` is lowest; 0 = the prior alone."""
    customer, candidates = scorer.layout.customer(valid.rows), scorer.layout.candidates(valid.rows)
    utilities = np.tile(scorer.prior, (len(valid), 1))
    losses = [log_loss(utilities, valid)]
    for key, table in zip(scorer.keys, scorer.tables, strict=True):
        utilities += key.looked_up(table, key.codes(customer, candidates))
        losses.append(log_loss(utilities, valid))
    return int(np.argmin(losses))


def _fitted(
    whole: CountsScorer, best: int, half_life: float | None, rows: int, started: float, gains: tuple[float, ...]
) -> Fitted:
    scorer = CountsScorer(whole.layout, whole.prior, whole.keys[:best], whole.tables[:best])
    words = [" × ".join(fact.told(scorer.layout) for fact in key.facts) for key in scorer.keys]
    params = {**prior_params(half_life), "keys": best, "keyed_by": told(words)[:500], "rows_used": rows}
    return Fitted(scorer, best, time.perf_counter() - started, params, _importance(scorer, gains[:best]))


def _importance(scorer: CountsScorer, gains: tuple[float, ...]) -> dict[str, float] | None:
    """Each column's share of the gain of the keys that look at it."""
    if not gains:
        return None
    found: dict[str, float] = {}
    for key, gain in zip(scorer.keys, gains, strict=True):
        for fact in key.facts:
            names = scorer.layout.candidate_names if fact.kind == "own" else scorer.layout.customer_names
            for column in fact.columns:
                part = gain / len(key.facts) / len(fact.columns)
                found[names[column]] = found.get(names[column], 0.0) + part
    total = sum(found.values()) or 1.0
    return {name: value / total for name, value in found.items()}
