"""Uplift of each channel and each content against no contact, on customers that the models had not seen.

A channel is judged with whatever content the log sent on it: T-, X- and DR-learner of `uplift`, propensities
estimated (the log knows those of whole actions). A content is judged by the rewards that the policy itself is made of;
where there are few contents the three learners are asked as well, with the propensities of `content_arms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Bool, Float64, Int64, Rows
from training.bootstrap import Interval
from training.content.content_log import ContentLog
from training.content.uplift import LEARNERS, Trial, cross_fitted
from training.content.uplift_metrics import Curve, Ranked, judged
from training.stable import under_cap

MOST_ROWS = 5_000
"""Rows of one trial: more make it surer, but every arm has its own learners to fit."""
FOLDS = 2
MOST_CONTENTS = 12
"""Contents that are judged, those most often sent."""
FEW_CONTENTS = 4
"""Up to so many contents the three learners are asked about each."""
FEWEST_ROWS = 500
"""Decisions of an arm below which nothing is said of its uplift."""
POLICY = "policy"
MAIN = "dr"


@dataclass(frozen=True)
class ArmUplift:
    """found, curves: way of foretelling (t, x, dr, policy) → what it reached. rows: treated and control decisions."""

    arm: str
    main: str
    rows: tuple[int, int]
    found: Mapping[str, Mapping[str, Interval]]
    curves: Mapping[str, Curve]

    def flat(self) -> dict[str, float]:
        """`uplift/<arm>/qini` with _low and _high, and so on, of the main way; `uplift/<arm>/<way>_qini` of others."""
        values: dict[str, float] = {}
        for way, numbers in self.found.items():
            for name, one in numbers.items():
                key = f"uplift/{self.arm}/{name if way == self.main else f'{way}_{name}'}"
                values |= one.flat(key)
        return {name: value for name, value in values.items() if np.isfinite(value)}


def uplifts(
    log: ContentLog, rows: Rows, available: Bool, rewards: Float64, weight: Float64, seed: int,
    progress: Progress = SILENT,
) -> tuple[ArmUplift, ...]:  # fmt: skip
    """Channels, then contents. rewards: out of fold, float64 [n, K + 1]; weight: float64 [n]; available: [n, K + 1]."""
    asked = [*_channels(log), *_contents(log, available)]
    found = []
    with progress.step("judge uplift", len(asked)) as advance:
        for name, content, index in asked:
            kept = index[under_cap(log.customer_id[index], log.at[index], MOST_ROWS)]
            with suppress(InputError):  # an arm that is too rare to learn from is not judged
                if content is None:
                    found.append(_of_channel(log, rows, name, kept, seed))
                else:
                    found.append(_of_content(log, rows, rewards, weight, name, content, kept, seed))
            advance(1)
    return tuple(found)


def _channels(log: ContentLog) -> Iterator[tuple[str, None, Int64]]:
    """Name and rows of the trial of each channel that was used often enough: its decisions and those of no contact."""
    for position, channel in enumerate(log.channels):
        mine = log.channel == position
        if mine.sum() >= FEWEST_ROWS:
            yield f"channel.{_slug(channel)}", None, np.flatnonzero(mine | log.silent)


def _contents(log: ContentLog, available: Bool) -> Iterator[tuple[str, int, Int64]]:
    """The same of contents; no contact counts only where the content could have been sent."""
    count = np.bincount(log.arm, minlength=len(log.contents) + 1)[:-1]
    for content in np.argsort(-count, kind="stable")[:MOST_CONTENTS].tolist():
        if count[content] >= FEWEST_ROWS:
            could = log.silent & available[:, content]
            yield f"content.{_slug(log.contents[content])}", content, np.flatnonzero((log.arm == content) | could)


def _of_channel(log: ContentLog, rows: Rows, name: str, index: Int64, seed: int) -> ArmUplift:
    trial = _trial(log, rows, index)
    said = cross_fitted(trial, list(LEARNERS), seed, FOLDS)
    weight = 1.0 / np.where(trial.treated, said.propensity, 1.0 - said.propensity)
    return _judged(name, MAIN, trial, dict(said.effects), weight, seed)


def _of_content(
    log: ContentLog, rows: Rows, rewards: Float64, weight: Float64, name: str, content: int, index: Int64, seed: int
) -> ArmUplift:
    trial = _trial(log, rows, index)
    ways = {POLICY: rewards[index, content] - rewards[index, -1]}
    if len(log.contents) <= FEW_CONTENTS:
        ways |= cross_fitted(trial, list(LEARNERS), seed, FOLDS).effects
    return _judged(name, POLICY, trial, ways, weight[index], seed)


def _trial(log: ContentLog, rows: Rows, index: Int64) -> Trial:
    return Trial(
        rows.customer[index], ~log.silent[index], log.reward[index], None, log.customer_id[index]
    )  # fmt: skip


def _judged(arm: str, main: str, trial: Trial, ways: Mapping[str, Float64], weight: Float64, seed: int) -> ArmUplift:
    ranked = {
        way: Ranked.by(effect, trial.treated, trial.outcome, weight, trial.customer_id) for way, effect in ways.items()
    }
    return ArmUplift(
        arm,
        main,
        (int(trial.treated.sum()), int((~trial.treated).sum())),
        {way: judged(one, seed) for way, one in ranked.items()},
        {way: one.curve() for way, one in ranked.items()},
    )


def _slug(name: str) -> str:
    """A name that MLflow takes in a metric: letters, digits, and _ - . for the rest."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-.") else "_" for letter in name)
