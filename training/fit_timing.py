"""Fit the timing model: counts, smoothed from coarse to fine, each level starting from the one above it.

    all channels   Beta(1, 1)
    channel        Beta worth CHANNEL_TRIALS messages around the rate of all
    channel, hour  Beta worth `trials` messages around the channel's; counts of neighbouring hours count partly
    channel, slot  the same around the hour's, over the 168 hours of the week

rate = (trials · rate above + successes) / (trials + messages): the posterior mean. `trials` and the customer's own
strengths (`serving.timing`) are chosen on later messages than they were counted on, from GRID; DECLARED where there is
too little to choose by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.schema import Bool, Float64, Int64
from features.times import PARTS
from serving.schedule import UNKNOWN_DELAY
from serving.timing import SLOTS, STAGES, Stage, TimingModel
from training.attempts import Attempts

CHANNEL_TRIALS = 20.0
NEIGHBOURS = 1.0
"""Standard deviation, in hours, of the circular kernel over neighbouring hours; one hour away counts 0.61."""
REACH = 3
"""Hours beyond which the kernel is cut off."""
NEVER = 1e9
"""Trials after which nothing finer than the level above is left."""
SLOT_TRIALS = (30.0, 100.0, 300.0, 1000.0, 3000.0, NEVER)
CUSTOMER_TRIALS = (3.0, 10.0, 30.0, 100.0, NEVER)
PULLS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
ACTIVE_TRIALS = (5.0, 20.0, 80.0, 320.0)
NOTICED_BY = 0.9
DELAY_TRIALS = 20
"""A channel with fewer noticed messages takes the delay of all channels."""


@dataclass(frozen=True)
class Strengths:
    """How much the coarser level is worth. trials, customer: per stage, in the order of STAGES, in messages."""

    trials: tuple[float, float, float] = (300.0, 300.0, 300.0)
    customer: tuple[float, float, float] = (30.0, 30.0, 30.0)
    pull: float = 0.5
    active: float = 20.0


DECLARED = Strengths()


def fit(learned: Attempts, channels: Sequence[str], time_zone: str, strengths: Strengths) -> TimingModel:
    """The model of these attempts with these strengths."""
    stages = {}
    for place, name in enumerate(STAGES):
        asked, success = outcome(learned, name)
        of_channel, slots = rates(
            learned.channel[asked], learned.slot[asked], success[asked], len(channels), strengths.trials[place]
        )
        pull = strengths.pull if name == "noticed" else 0.0
        stages[name] = Stage(of_channel, slots, strengths.customer[place], pull)
    return TimingModel(
        channels=tuple(channels),
        time_zone=time_zone,
        **stages,
        shares=activity(learned),
        active=strengths.active,
        delays=delays(learned, len(channels)),
        tried=tried(learned, len(channels)),
    )


def outcome(learned: Attempts, stage: str) -> tuple[Bool, Bool]:
    """Which attempts a stage was asked of, and which of all succeeded; both bool [n]."""
    if stage == "delivered":
        return learned.reported, learned.delivered
    if stage == "noticed":
        return learned.delivered, learned.noticed
    return learned.noticed, learned.answered


def rates(channel: Int64, slot: Int64, success: Bool, channels: int, trials: float) -> tuple[Float64, Float64]:
    """Smoothed success rates per channel, float64 [H], and per channel and slot, float64 [H, 168]."""
    cell = channel * SLOTS + slot
    count, won = (
        np.bincount(cell, weight, channels * SLOTS).astype(np.float64).reshape(channels, SLOTS)
        for weight in (np.ones(len(cell)), success.astype(np.float64))
    )
    overall = shrunk(won.sum(), count.sum(), 0.5, 2.0)
    of_channel = shrunk(won.sum(axis=1), count.sum(axis=1), overall, CHANNEL_TRIALS)  # [H]
    daily_won, daily = (_by_day(part) for part in (won, count))  # [H, 24]
    hour = shrunk(around(daily_won), around(daily), of_channel[:, None], trials)  # [H, 24]
    slots = shrunk(around(won), around(count), np.tile(hour, (1, 7)), trials)  # [H, 168]
    return of_channel, slots


def _by_day(counts: Float64) -> Float64:
    """Counts [H, 168] of the hours of the week as those of the day, float64 [H, 24]."""
    return np.asarray(counts.reshape(len(counts), 7, 24).sum(axis=1), dtype=np.float64)


def shrunk(successes: Float64, messages: Float64, above: Float64 | float, trials: float) -> Float64:
    """The posterior mean of a rate under a Beta prior around `above` worth `trials` messages."""
    return np.asarray((trials * above + successes) / (trials + messages))


def around(counts: Float64) -> Float64:
    """Counts [H, m] of a circle of m hours, each with those of its neighbours by the kernel."""
    total = counts.astype(np.float64)
    for hours in range(1, REACH + 1):
        weight = np.exp(-0.5 * (hours / NEIGHBOURS) ** 2)
        total += weight * (np.roll(counts, hours, axis=1) + np.roll(counts, -hours, axis=1))
    return total


def tried(learned: Attempts, channels: int) -> Float64:
    """Messages of each channel around the hour of the day of each slot, by the kernel: float64 [H, 168]."""
    count = np.bincount(learned.channel * SLOTS + learned.slot, minlength=channels * SLOTS).reshape(channels, SLOTS)
    return np.tile(around(_by_day(count.astype(np.float64))), (1, 7))


def activity(learned: Attempts) -> Float64:
    """Everybody's share of activity by part of the day, float64 [8]; each part starts with one."""
    counts = learned.habits.parts.sum(axis=0) + 1.0 if len(learned) else np.ones(PARTS)
    return np.asarray(counts / counts.sum())


def delays(learned: Attempts, channels: int) -> Float64:
    """Seconds after sending by which nine in ten of the noticed messages were noticed, float64 [H]."""
    if not learned.noticed.any():
        return np.full(channels, UNKNOWN_DELAY.total_seconds())
    found = np.full(channels, np.quantile(learned.delay[learned.noticed], NOTICED_BY))
    for channel in range(channels):
        mine = learned.delay[learned.noticed & (learned.channel == channel)]
        if len(mine) >= DELAY_TRIALS:
            found[channel] = np.quantile(mine, NOTICED_BY)
    return np.maximum(found, 60.0)  # a hop is waited for at least a minute


def choose(train: Attempts, valid: Attempts, channels: Sequence[str], time_zone: str) -> Strengths:
    """The strengths with which a model of `train` foretells the later `valid` best, one after the other."""
    best = DECLARED
    for place, name in enumerate(STAGES):
        best = _better(train, valid, channels, time_zone, name, best, [
            replace(best, trials=_with(best.trials, place, trials)) for trials in SLOT_TRIALS
        ])  # fmt: skip
        best = _better(train, valid, channels, time_zone, name, best, [
            replace(best, customer=_with(best.customer, place, trials)) for trials in CUSTOMER_TRIALS
        ])  # fmt: skip
    pulls = [replace(best, pull=pull, active=active) for pull in PULLS for active in ACTIVE_TRIALS]
    return _better(train, valid, channels, time_zone, "noticed", best, pulls)


def chances(model: TimingModel, asked: Attempts) -> Float64:
    """Float64 [n, 3] in the order of STAGES."""
    return model.chances(asked.channel, asked.slot, asked.part, asked.habits)


def log_losses(probability: Float64, success: Bool) -> Float64:
    """Float64 [n]: −log of the probability given to what happened."""
    return np.asarray(-np.log(np.where(success, probability, 1.0 - probability)))


def _better(
    train: Attempts,
    valid: Attempts,
    channels: Sequence[str],
    time_zone: str,
    stage: str,
    present: Strengths,
    candidates: Sequence[Strengths],
) -> Strengths:
    asked, success = outcome(valid, stage)
    if not asked.any():
        return present
    losses = []
    for candidate in candidates:
        foretold = chances(fit(train, channels, time_zone, candidate), valid)[:, STAGES.index(stage)]
        losses.append(float(log_losses(foretold, success)[asked].mean()))
    return candidates[int(np.argmin(losses))]


def _with(values: tuple[float, float, float], place: int, value: float) -> tuple[float, float, float]:
    first, second, third = (value if at == place else kept for at, kept in enumerate(values))
    return first, second, third
