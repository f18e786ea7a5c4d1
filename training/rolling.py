"""Rolling refits: decisions in order of time, in blocks; fitted again before each block on what is known by then.

A row's outcome is known `delay` decisions later, never sooner; with `windows` also not before its response window has
closed. Before each block the family is fitted on all that is known. LightGBM takes a fixed number of rounds and stays
as its log-loss made it: under drift the newest rows, held back, stop boosting at once and calibrate for the past (on
the calls of a bank: AUC 0.742 against 0.748 with the calendar). Other families are fitted as in a training run: the
newest known rows choose the rounds (the median of the choices so far) and calibrate. Beside it stands the frozen
model, which is the first of these fits and never changes. Both with and without the online bias, which learns from the
same known outcomes, one decision after the other (`online_bias`), and with the recent rate alone: that bias on a
constant, which knows nothing of a customer. Where levels move, much of a pooled AUC is the rate's.

Features are what the events before a decision said; the delay is of labels. The calendar's columns (hour, weekday, day
of month) are left out unless asked for: over less than many periods they number the decisions of a log that is worked
off in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from features.assemble import CALENDAR_NAMES
from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Float64, Int64
from serving.calibration import Calibration
from serving.choice import ChoiceModel
from serving.scorers import Layout, PriorScorer
from training.dataset import Dataset
from training.families import FAMILIES, Fitted
from training.fit_calibration import fit_calibration
from training.fit_prior import prior_params
from training.online_bias import HALF_LIFE, corrected

UNCALIBRATED = Calibration("identity", evidence="fitted by log-loss on all that was known; the online bias corrects it")
VALID_SHARE, VALID_LEAST = 0.15, 150
"""The newest known rows choose the rounds: how many of them; at most a block, which is as far as a fit has to see."""
ROUNDS = {"lightgbm": 30}
STEP = {"learning_rate": 0.1}
"""Rounds of families whose every refit is the same: the newest outcomes of times that change stop boosting at once."""
FEWEST = 10
"""Known take-ups with which to begin: fewer teach nothing."""
REFIT, FROZEN = "refit", "frozen"
BIAS = "bias"
RATE = "rate"


@dataclass(frozen=True)
class Walk:
    """How to walk. every, delay: rows. first: rows before the first block that is scored, None = as few as can teach.

    windows: outcomes are known when their window has closed, too. rounds: of each fit, None = `ROUNDS`, or what the
    newest known rows choose. half_life: of the online bias, in decisions.
    """

    family: str = "lightgbm"
    every: int = 1_000
    delay: int = 500
    first: int | None = None
    windows: bool = False
    calendar: bool = False
    rounds: int | None = None
    half_life: float = HALF_LIFE
    seed: int = 0


@dataclass(frozen=True)
class Block:
    """Rows [start, stop) of the data, scored by what the first `known` rows taught in `rounds` rounds."""

    start: int
    stop: int
    known: int
    rounds: int


@dataclass(frozen=True)
class Rolled:
    """What was said of the scored rows: float64 [k, m] by name, in order of time; blocks are of the rows before."""

    data: Dataset
    said: Mapping[str, Float64]
    blocks: tuple[Block, ...]

    @property
    def block_of(self) -> Int64:
        """int64 [k]: position of each scored row's block."""
        return np.repeat(np.arange(len(self.blocks)), [block.stop - block.start for block in self.blocks])


def roll(data: Dataset, walk: Walk, progress: Progress = SILENT) -> Rolled:
    """Walk the rows of `data`, which are in order of time. Raises InputError where nothing can be scored."""
    if (np.diff(data.spine.as_of) < 0).any():
        raise ValueError("rolling refits walk in order of time, however the rows are not in it")
    if not walk.calendar:
        data = without_calendar(data)
    known = known_when(data.spine.as_of, data.spine.closes, walk.delay, walk.windows)
    begin = first_scored(data, walk, known)
    starts = range(begin, len(data), walk.every)
    said: dict[str, list[Float64]] = {REFIT: [], FROZEN: []}
    blocks: list[Block] = []
    frozen, chosen = None, list[int]()
    with progress.step("fit and score the blocks", len(starts)) as advance:
        for start in starts:
            stop = min(start + walk.every, len(data))
            model, rounds = fitted(data.take(np.arange(known[start])), chosen, walk)
            frozen = frozen or model
            rows = data.take(np.arange(start, stop))
            said[REFIT].append(model.probabilities(rows.rows, rows.available))
            said[FROZEN].append(frozen.probabilities(rows.rows, rows.available))
            blocks.append(Block(start, stop, int(known[start]), rounds))
            advance(1)
    scored = data.take(np.arange(begin, len(data)))
    plain = {name: np.concatenate(parts) for name, parts in said.items()}
    served = np.maximum(known[begin:] - begin, 0)  # of the rows that were scored, how many outcomes are known
    for name in (REFIT, FROZEN):
        plain[f"{name}_{BIAS}"] = corrected(plain[name], scored.taken, served, walk.half_life)
    share = float(data.taken[: known[begin]].sum() / data.available[: known[begin]].sum())
    plain[RATE] = corrected(np.where(scored.available, share, np.nan), scored.taken, served, walk.half_life)
    return Rolled(scored, plain, tuple(blocks))


def require_log(source: str) -> None:
    """InputError unless the rows of a plan are logged decisions, whose outcomes can be known so many decisions late."""
    if source != "decisions":
        raise InputError(
            "rolling refits walk a log of decisions that take-ups name, however these tables tell of take-ups without "
            "their decisions; add decision_id to `converted` events, or use `nextbest train`"
        )


def known_when(as_of: Int64, closes: Int64, delay: int, windows: bool) -> Int64:
    """int64 [n]: the outcomes of the first known[i] rows are known when row i is decided; never falls.

    Row i - delay is the newest that is; with windows, neither it nor an earlier one is still open at as_of[i] (µs).
    """
    known = np.maximum(np.arange(len(as_of)) - delay, 0)
    if windows:
        known = np.minimum(known, np.searchsorted(np.maximum.accumulate(closes), as_of, side="right"))
    return known.astype(np.int64)


def first_scored(data: Dataset, walk: Walk, known: Int64) -> int:
    """The first row to be scored: a multiple of `every` (or `first`) at which FEWEST take-ups are known."""
    wins = np.cumsum(data.taken.any(axis=1))
    start = walk.every if walk.first is None else walk.first
    while start < len(data):
        if known[start] > VALID_LEAST and wins[known[start] - 1] >= FEWEST:
            return start
        if walk.first is not None:
            break
        start += walk.every
    raise InputError(
        f"rolling refits begin when more than {VALID_LEAST} outcomes and {FEWEST} take-ups are known, however of "
        f"{len(data)} rows with {int(wins[-1]) if len(wins) else 0} take-ups none is left to score; use a smaller "
        "--delay or --every, another --first, or more history"
    )


def fitted(learned: Dataset, chosen: list[int], walk: Walk) -> tuple[ChoiceModel, int]:
    """A model of all rows of `learned`, and its rounds; `chosen` grows by one choice."""
    question, family, schema = learned.question, FAMILIES[walk.family], learned.rows.schema
    rounds = ROUNDS.get(walk.family) if walk.rounds is None else walk.rounds
    if walk.family == "lightgbm" and rounds is not None:
        nothing = PriorScorer(Layout.of(question, schema), np.zeros(len(question.candidates) + 1, np.float32))
        inner, calibration = Fitted(nothing, rounds, 0.0, {**prior_params(None), **STEP}), UNCALIBRATED
    else:
        newest = int(np.clip(VALID_SHARE * len(learned), VALID_LEAST, max(VALID_LEAST, walk.every)))
        train, valid = learned.take(np.arange(len(learned) - newest)), learned.take(np.arange(len(learned))[-newest:])
        inner = family.fit(question, train.examples, valid.examples, walk.seed)
        judged = valid.take(valid.judged_for_probability)
        calibration = fit_calibration(question, inner.scorer, judged.examples, judged.customer_id)
        chosen.append(inner.rounds)
        rounds = int(np.ceil(np.median(chosen))) if rounds is None else rounds
    again = family.refit(question, learned.examples, replace(inner, rounds=rounds), walk.seed)
    return ChoiceModel(question, again.scorer, calibration, schema), rounds


def without_calendar(data: Dataset) -> Dataset:
    """The same rows with the calendar's columns missing."""
    hidden = [place for place, name in enumerate(data.rows.schema.customer_names) if name in CALENDAR_NAMES]
    customer = data.rows.customer.copy()
    customer[:, hidden] = np.nan
    return replace(data, rows=replace(data.rows, customer=customer))
