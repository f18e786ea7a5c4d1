"""When a message gets through: P(delivered | sent) · P(noticed | delivered) · P(answered | noticed), by local hour.

Each of the three stages has a rate per channel and hour of the week (168 slots, by the hour at which it is sent),
smoothed by `training.fit_timing`. A customer moves these rates by their own record on the channel, in odds,

    posterior = (strength · channel rate + successes) / (strength + trials)        (Beta prior worth `strength` trials)
    odds      = slot odds · odds(posterior) / odds(channel rate) · lift ^ pull

and `noticed` also by the hours at which they are active: lift = the customer's share of activity in that part of the
day, over everybody's, shrunk alike. Without a record posterior = channel rate and lift = 1: a new customer is ranked
by the slots of all customers.

Kept as `timing.json` with the SHA-256 of it in `manifest.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from features.errors import ArtefactError
from features.habits import Habits
from features.schema import Float64, Int64
from features.times import PARTS
from serving.choice import verify, write_verified

SLOTS = 168
STAGES = ("delivered", "noticed", "answered")
TIMING_FILE = "timing.json"
# Where habits' outcomes (delivered, failed, noticed, answered) count for the stages; what failed was tried too.
_SUCCESSES, _TRIALS, _FAILED = np.array([0, 2, 3]), np.array([0, 0, 2]), 1


def slot_of(at: datetime, zone: ZoneInfo) -> int:
    """Hour of the local week, 0 = Monday midnight; an hour that a clock change repeats is one slot twice."""
    local = at.astimezone(zone)
    return local.weekday() * 24 + local.hour


@dataclass(frozen=True)
class Stage:
    """One conditional step. channels: float64 [H], slots: float64 [H, 168], all in (0, 1).

    strength: how many trials of a customer's own the channel's rate is worth. pull: exponent of the hours' lift.
    """

    channels: Float64
    slots: Float64
    strength: float
    pull: float = 0.0


@dataclass(frozen=True, eq=False)
class Hours:
    """k hours on c channels, `asked` of the model's, before it is known whose they are.

    slots: float64 [3, c, k] and rates: float64 [3, c, 1], log-odds of the stages by slot, and of the channels. parts:
    int64 [k], of the day.
    """

    slots: Float64
    rates: Float64
    parts: Int64
    asked: slice


@dataclass(frozen=True)
class Outlook:
    """A customer's log-odds of the three stages by channel, [3, H], and of noticing more by part of the day, [8]."""

    posterior: Float64
    lift: Float64

    def reached(self, there: Hours) -> Float64:
        """Float64 [c, k]: P(delivered, noticed and answered) by each channel, in each of these hours."""
        posterior = self.posterior[:, there.asked, None]
        delivered, noticed, answered = _stages(there.slots, posterior, there.rates, self.lift[there.parts])
        return np.asarray(delivered * noticed * answered)


@dataclass(frozen=True)
class TimingModel:
    """Three stages over H channels. shares: float64 [8], everybody's activity by part of the day, summing to 1.

    active: how many of a customer's own activities `shares` is worth. delays: float64 [H], seconds after sending by
    which nine in ten of those who ever notice have done so. tried: float64 [H, 168], messages that were sent around
    that hour of the day.
    """

    channels: tuple[str, ...]
    time_zone: str
    delivered: Stage
    noticed: Stage
    answered: Stage
    shares: Float64
    active: float
    delays: Float64
    tried: Float64

    def chances(self, channel: Int64, slot: Int64, part: Int64, habits: Habits) -> Float64:
        """Float64 [n, 3]: delivered, noticed if delivered, answered if noticed; question i is of habits' row i."""
        mine = habits.outcomes[np.arange(len(channel)), channel]  # [n, 4]
        lift = self.lifts(habits.parts)[np.arange(len(part)), part]
        posterior = self._posterior(mine, self._rates[:, channel])
        stages = _stages(self._slot_logits[:, channel, slot], posterior, self._rate_logits[:, channel], lift)
        return np.moveaxis(stages, 0, -1)

    def outlook(self, habits: Habits) -> Outlook:
        """What the model says of the first of these customers."""
        return Outlook(self._posterior(habits.outcomes[0], self._rates), self.lifts(habits.parts)[0])

    def hours(self, place: int | None, slots: Sequence[int], parts: Sequence[int]) -> Hours:
        """Hours by slots [k] of the week and parts [k] of the day; place: of their channel, None: all of them."""
        asked = slice(None) if place is None else slice(place, place + 1)
        there = np.ascontiguousarray(self._slot_logits[:, asked, list(slots)])
        return Hours(there, self._rate_logits[:, asked, None], np.array(parts), asked)

    def lifts(self, parts: Float64) -> Float64:
        """Float64 [n, 8]: log-odds by which customers with these counts [n, 8] notice more in each part of the day."""
        total = parts.sum(axis=1, keepdims=True)
        share = (self._usual + parts) / (self.active + total)
        lift = np.where(total > 0, share / self.shares, 1.0)
        return np.asarray(self.noticed.pull * np.log(lift))

    def _posterior(self, outcomes: Float64, rate: Float64) -> Float64:
        """Float64 [3, m]: per stage the log-odds of m customers on channels, with these outcomes [m, 4] and rates
        [3, m] of all customers."""
        counts = outcomes.T  # [4, m]
        successes, trials = counts.take(_SUCCESSES, axis=0), counts.take(_TRIALS, axis=0)  # [3, m] each
        trials[0] += counts[_FAILED]
        np.maximum(trials, successes, out=trials)
        strength = self._strengths
        return _logit(np.where(trials > 0, (strength * rate + successes) / (strength + trials), rate))

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each channel stands."""
        return {name: place for place, name in enumerate(self.channels)}

    @cached_property
    def patience(self) -> dict[str, timedelta]:
        """How long a hop on each channel is waited for, in whole seconds."""
        return {
            name: timedelta(seconds=round(delay))
            for name, delay in zip(self.channels, self.delays.tolist(), strict=True)
        }

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)

    @property
    def _stages(self) -> tuple[Stage, Stage, Stage]:
        return self.delivered, self.noticed, self.answered

    @cached_property
    def _rates(self) -> Float64:
        return np.stack([stage.channels for stage in self._stages])  # [3, H]

    @cached_property
    def _rate_logits(self) -> Float64:
        return _logit(self._rates)

    @cached_property
    def _slot_logits(self) -> Float64:
        return _logit(np.stack([stage.slots for stage in self._stages]))  # [3, H, 168]

    @cached_property
    def _strengths(self) -> Float64:
        return np.array([[stage.strength] for stage in self._stages])  # [3, 1]

    @cached_property
    def _usual(self) -> Float64:
        return self.active * self.shares  # [8]

    def save(self, folder: Path) -> None:
        """Write the model to a new `folder`, all of it or nothing."""
        document = asdict(self)
        text = json.dumps(document, default=lambda array: array.tolist(), allow_nan=False, indent=1)
        write_verified(folder, lambda draft: (draft / TIMING_FILE).write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, folder: Path) -> TimingModel:
        """Load a saved model; ArtefactError when it is missing, damaged or makes no sense."""
        verify(folder)
        try:
            return _checked(json.loads((folder / TIMING_FILE).read_text(encoding="utf-8")))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"{folder} is not a timing model that this version reads: {error!r}; train again"
            ) from error


def _checked(raw: Mapping[str, Any]) -> TimingModel:
    channels = tuple(str(name) for name in raw["channels"])
    stages = {}
    for name in STAGES:
        stage = raw[name]
        of_channel, slots = np.array(stage["channels"], np.float64), np.array(stage["slots"], np.float64)
        if of_channel.shape != (len(channels),) or slots.shape != (len(channels), SLOTS):
            raise ValueError(f"{name} has rates of shapes {of_channel.shape} and {slots.shape}")
        if not all(((rates > 0) & (rates < 1)).all() for rates in (of_channel, slots)):
            raise ValueError(f"{name} has a rate outside (0, 1)")
        stages[name] = Stage(of_channel, slots, _positive(stage["strength"]), float(stage["pull"]))
    shares, delays = np.array(raw["shares"], np.float64), np.array(raw["delays"], np.float64)
    if shares.shape != (PARTS,) or not (shares > 0).all() or not np.isclose(shares.sum(), 1.0):
        raise ValueError("shares must be positive and sum to 1")
    if delays.shape != (len(channels),) or not (np.isfinite(delays) & (delays > 0)).all():
        raise ValueError("delays must be positive, one per channel")
    tried = np.array(raw["tried"], np.float64)
    if tried.shape != (len(channels), SLOTS) or not (np.isfinite(tried) & (tried >= 0)).all():
        raise ValueError("tried must be counts, one per channel and slot")
    zone, active = str(ZoneInfo(raw["time_zone"])), _positive(raw["active"])
    return TimingModel(channels, zone, **stages, shares=shares, active=active, delays=delays, tried=tried)


def _positive(number: object) -> float:
    value = float(number)  # type: ignore[arg-type]  # anything float() refuses is an error of the file
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"a strength must be a finite number above 0, however it is {value}")
    return value


def _stages(slots: Float64, posterior: Float64, rates: Float64, lift: Float64) -> Float64:
    """Float64 [3, …]: the stages' probabilities from log-odds: of slots, posterior and channel rates, each [3, …], and
    of noticing more, […]."""
    against = rates - (slots + posterior)  # log-odds of the contrary: rounding is the same for both signs
    against[1] -= lift
    np.exp(against, out=against)
    against += 1.0
    return np.divide(1.0, against, out=against)


def _logit(probability: Float64) -> Float64:
    return np.asarray(np.log(probability) - np.log1p(-probability))
