"""LightGBM under the masked softmax: trees over (row, candidate) pairs, with the prior as the starting point.

The objective is the cross-entropy of a choice among the available options of a row, so its gradient couples
the pairs of a row. Only available candidates are pairs; the outside option is a constant beside them (see
`LightGBMScorer`).

A trap that the settings answer: started from calibrated intercepts, a column of the customer has no gain at
the root of a tree where there is no outside option (the gradients of a row sum to 0), and neither has the
candidate's own column (its intercept is right already); greedy trees would learn nothing of "customers like
this take that". Bagging leaves the candidate's column some gain, and `CANDIDATE_GAIN` makes a tree look there
first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
from lightgbm.callback import CallbackEnv

from features.progress import SILENT, Advance, Progress
from features.schema import Float32
from serving.choice import Question
from serving.scorers import Index, Layout, LightGBMScorer
from training.alternatives import chances
from training.examples import Examples
from training.families import Fitted, Plain, require_examples
from training.fit_prior import choose_half_life, half_life_of, log_popularity, prior_params
from training.pairs import InOrder, MaskedSoftmax, Pairs, PairSequence
from training.settings import DEFAULTS, TUNED, Range, Settings, Watch, settings_of

MAX_ROUNDS = 600
PATIENCE = 25
"""Rounds without a better validation log-loss before training stops."""

THREADS = 2
PAIR_BYTES = 1_500_000_000
"""Memory for the binned pairs (LightGBM keeps two bytes per cell); beyond it candidates are left out, then rows."""

CANDIDATE_GAIN = 30.0
"""Factor on the gain of splits on the candidate. On made-up choices among six candidates that no column of the
customer makes more or fewer, the log-loss above the optimum was 0.18 at 1, 0.11 at 3, 0.09 at 10 and 0.08 at 30."""

FEW_PAIRS = 200_000
SLOW, FAST = 0.05, 0.1
"""Learning rates up to so many pairs, and beyond, where twice the rounds cost minutes. Small steps, with leaves of a
500th instead of a 2,000th of the pairs: log-loss -0.0006 [-0.0011, -0.0001] for new customers, on real visits."""
IN_CACHE = 200_000
"""Pairs beyond which their lines lie candidate after candidate."""
SMALLEST_LEAF, LARGEST_LEAF = 5, 200
LEAVES, FAST_LEAVES = 500, 2_000
"""A leaf holds at least this part of the pairs, within those bounds: small steps average over many trees and want large
leaves; faster ones, of which there are fewer, have to find the few who take in leaves that hold hardly more."""

SETTINGS: dict[str, Any] = {
    "num_leaves": 31,
    "min_sum_hessian_in_leaf": 1.0,  # weights have mean 1: a leaf expects about one choice at least
    "lambda_l2": 8.0,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "max_bin": 127,
    "cat_l2": 1.0,
    "cat_smooth": 1.0,
    "min_data_per_group": 20,
    "max_cat_to_onehot": 1,
    "bin_construct_sample_cnt": 100_000,
    "deterministic": True,
    "force_row_wise": True,
    "metric": "None",
    "verbosity": -1,
}


SPACE = {
    "learning_rate": Range(0.03, 0.2, log=True),
    "num_leaves": Range(4, 64, log=True, whole=True),
    "min_data_in_leaf": Range(5, 1000, log=True, whole=True),
    "lambda_l2": Range(0.5, 100.0, log=True),
    "feature_fraction": Range(0.3, 1.0),
    "candidate_gain": Range(1.0, 100.0, log=True),
}
"""What `--tune` searches. Bagging stays: `CANDIDATE_GAIN` rests on it."""


def fit(
    question: Question,
    train: Examples,
    valid: Examples,
    seed: int = 0,
    progress: Progress = SILENT,
    settings: Settings = DEFAULTS,
    watch: Watch | None = None,
) -> Fitted:
    """Boost until the validation log-loss stops falling; the best round is kept."""
    require_examples(question, training=train, validation=valid)
    started = time.perf_counter()
    half_life = choose_half_life(train, valid)
    with progress.step("lightgbm", MAX_ROUNDS) as advance:
        return _boost(question, train, valid, MAX_ROUNDS, half_life, settings, seed, started, advance, watch)


def refit(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    """Boost on `train` for as many rounds as `like`, by steps of the same size however many pairs there are now.

    To look only at the columns that a quick fit on some of the rows found worth it halves the time of a round, and
    loses where what matters is faint: HR@3 0.601 instead of 0.608 on insurance purchases, where 16 of 114 were left.
    To teach only the leaves of the trees that `like` has is faster, and surely worse: MAP@7 -0.008 [-0.011, -0.004] on
    insurance purchases, -0.011 [-0.014, -0.008] on touches.
    """
    require_examples(question, training=train)
    started = time.perf_counter()
    settings = {"learning_rate": float(like.params["learning_rate"]), **settings_of(like, SPACE)}
    return _boost(question, train, None, like.rounds, half_life_of(like), settings, seed, started, lambda done: None)


def defaults(train: Examples) -> Settings:
    """The values of `SPACE` that a fit on `train` has by itself."""
    own = _settings(int(train.available[:, :-1].sum()), 1, 0, DEFAULTS)
    return {name: float(own.get(name, CANDIDATE_GAIN)) for name in SPACE}


def learning_rate(pairs: int) -> float:
    """Slow where there are few pairs: rounds are cheap there."""
    return SLOW if pairs <= FEW_PAIRS else FAST


def _boost(
    question: Question,
    train: Examples,
    valid: Examples | None,
    rounds: int,
    half_life: float | None,
    chosen: Settings,
    seed: int,
    started: float,
    advance: Advance,
    watch: Watch | None = None,
) -> Fitted:
    layout = Layout.of(question, train.rows.schema)
    prior = log_popularity(train, half_life)
    most = PAIR_BYTES // (2 * len(layout.pair_names))
    pairs = Pairs.of(train, most, seed, partial(chances, log_popularity=prior[:-1], most=most))
    # steps are for the question's size, leaves for the lines that are there to fill them
    chosen = {"learning_rate": learning_rate(pairs.available), **chosen}
    settings = _settings(len(pairs), len(layout.pair_names), seed, chosen)
    softmax = MaskedSoftmax(pairs, float(prior[-1]))
    # trees split by candidates first: with lines candidate after candidate the lines of a leaf lie together in memory,
    # and a round over more pairs than the caches hold takes a fifth less time
    order = pairs.by_candidate() if len(pairs) > IN_CACHE else None
    objective = softmax if order is None else InOrder(softmax, order)
    data = _dataset(train, layout, prior, pairs, settings, order=order)
    stop: list[Callable[[CallbackEnv], None]] = [lambda environment: advance(1)]
    valid_sets: list[lightgbm.Dataset] = []
    judge = None
    if valid is not None:
        valid_pairs = Pairs.of(valid)
        valid_sets = [_dataset(valid, layout, prior, valid_pairs, settings, data)]
        judge = _log_loss_of(MaskedSoftmax(valid_pairs, float(prior[-1])))
        stop.append(lightgbm.early_stopping(PATIENCE, verbose=False))
    if watch is not None:
        stop.append(_watched(watch, settings["learning_rate"]))
    booster = lightgbm.train(
        {**settings, "objective": objective},
        data,
        num_boost_round=rounds,
        valid_sets=valid_sets,
        feval=judge,
        callbacks=stop,
    )
    best = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
    # as text and back: the scorer is then the same before and after it is saved
    trees = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best))
    params: dict[str, Plain] = {
        **{name: value for name, value in settings.items() if isinstance(value, (bool, int, float, str))},
        **prior_params(half_life),
        "candidate_gain": settings["feature_contri"][-1],
        TUNED: chosen.keys() >= SPACE.keys(),
        "rounds": best,
        "pairs": len(pairs),
        "pairs_given": pairs.available,
        "rows_used": len(pairs.start),
        "rows_given": len(train),
    }
    # two threads where many rows are scored, on the way to a model; what is registered answers one customer
    threads = 1 if valid is None else THREADS
    return Fitted(
        LightGBMScorer(layout, prior, trees, threads),
        best,
        time.perf_counter() - started,
        params,
        _importance(trees, layout, settings["feature_contri"][-1]),
    )


def _settings(pairs: int, columns: int, seed: int, chosen: Settings) -> dict[str, Any]:
    rate = chosen.get("learning_rate", learning_rate(pairs))
    leaves = LEAVES if rate <= SLOW else FAST_LEAVES
    own: dict[str, Any] = {
        "learning_rate": rate,
        "min_data_in_leaf": int(np.clip(pairs // leaves, SMALLEST_LEAF, LARGEST_LEAF)),
        "candidate_gain": CANDIDATE_GAIN,
        **{name: round(value) if SPACE[name].whole else value for name, value in chosen.items()},
    }
    gain = own.pop("candidate_gain")
    return {
        **SETTINGS,
        **own,
        "feature_contri": [1.0] * (columns - 1) + [gain],
        "num_threads": THREADS,
        "seed": seed,
    }


def _dataset(
    examples: Examples,
    layout: Layout,
    prior: Float32,
    pairs: Pairs,
    settings: dict[str, Any],
    reference: lightgbm.Dataset | None = None,
    order: Index | None = None,
) -> lightgbm.Dataset:
    lines = PairSequence(examples, layout, prior, pairs, order)
    # columns go by position: LightGBM refuses or rewrites names with commas, quotes, colons or spaces
    return lightgbm.Dataset(
        lines,
        init_score=(prior[:-1] + pairs.offset)[lines.candidate].astype(np.float64),
        reference=reference,
        categorical_feature=[len(layout.pair_names) - 1],
        params=settings,
        free_raw_data=True,
    )


def _log_loss_of(
    softmax: MaskedSoftmax,
) -> Callable[[npt.NDArray[Any], lightgbm.Dataset], tuple[str, float, bool]]:
    def log_loss(utilities: npt.NDArray[Any], data: lightgbm.Dataset) -> tuple[str, float, bool]:
        return "log_loss", softmax.loss(utilities), False

    return log_loss


def _watched(watch: Watch, rate: float) -> Callable[[CallbackEnv], None]:
    def told(environment: CallbackEnv) -> None:
        for _, _, loss, *_ in environment.evaluation_result_list or ():
            watch((environment.iteration + 1) * rate, loss)

    return told


def _importance(booster: lightgbm.Booster, layout: Layout, candidate_gain: float) -> dict[str, float]:
    gains = booster.feature_importance(importance_type="gain")
    gains[-1] /= candidate_gain  # LightGBM keeps the gains as it multiplied them
    total = float(gains.sum()) or 1.0
    shares: dict[str, float] = {}
    for name, gain in zip(layout.pair_names, gains, strict=True):
        shares[name] = shares.get(name, 0.0) + float(gain) / total
    return shares
