"""The simulated people: who they are, what they like, and what happens in their lives month by month."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from features.schema import Bool, Float32, Float64
from features.simulation.calendar import DAY, Ints
from features.simulation.catalog import CHANNELS
from features.simulation.life import Life, life_month
from features.simulation.parameters import TRAITS, need_weights
from features.simulation.truth import Latents

Small: TypeAlias = npt.NDArray[np.int8]

SEGMENTS = ("young", "mass", "affluent", "private", "retired")
AGE_BANDS = (30.0, 45.0, 60.0)
NEWCOMERS = 0.25
"""Share of customers who join during the simulated months; the others are there from the first moment."""

CHANNEL_TASTE: dict[str, tuple[float, float, float, float]] = {  # mean, by age, by online taste, by income
    "app_push": (0.0, -0.4, 0.5, 0.0),
    "in_app": (0.0, -0.4, 0.6, 0.0),
    "sms": (0.0, 0.1, -0.2, -0.2),
    "email": (0.0, -0.1, 0.1, 0.5),
    "wechat": (0.0, -0.2, 0.3, 0.0),
    "voice": (0.0, 0.5, -0.3, 0.0),
    "branch": (0.0, 0.7, -0.5, 0.2),
}
TASTE_NOISE = 0.8


@dataclass(frozen=True)
class People:
    """N customers: what is fixed for life, and one profile per month."""

    known: Float64  # [N] time from which the bank knows them
    birth: Float64  # [N] time of birth (negative)
    english: Small  # [N] index into LANGUAGES
    taste: dict[str, Float64]  # travel, online, saver, risk: standard normal [N] each
    latents: Latents
    need: Float32  # [M, N, P]
    address: Bool  # [M, N, H]
    segment: Small  # [M, N] at the start of each month
    age_band: Small  # [M, N]
    income: Float32  # [M, N] per month
    retired: Bool  # [M, N]
    changes: tuple[tuple[Ints, Float64, Life], ...]
    """(customers, times, their new state): the first one introduces everybody."""


def draw_people(random: np.random.Generator, customers: int, starts: Float64) -> People:
    """Draw the customers and live through the months `starts` [M + 1]."""
    end, months = float(starts[-1]), len(starts) - 1
    late = random.random(customers) < NEWCOMERS
    known = np.where(late, np.floor(random.random(customers) * end), 0.0)
    age = np.clip(random.gamma(9.0, 4.6, customers) + 2.0, 18.0, 88.0)
    birth = -age * 365.25 * DAY
    taste = {name: random.normal(size=customers) for name in ("travel", "online", "saver", "risk")}
    taste["online"] = 0.9 * taste["online"] - 0.35 * (age - 42.0) / 14.0
    english = (random.random(customers) < 0.07).astype(np.int8)
    life = _first_life(random, age, taste)
    latents = _draw_latents(random, age, taste, life.income)

    weights = need_weights().astype(np.float32)
    need = np.empty((months, customers, weights.shape[1]), dtype=np.float32)
    address = np.empty((months, customers, len(CHANNELS)), dtype=np.bool_)
    segment, band = np.empty((2, months, customers), dtype=np.int8)
    income = np.empty((months, customers), dtype=np.float32)
    retired = np.empty((months, customers), dtype=np.bool_)
    changes: list[tuple[Ints, Float64, Life]] = [(np.arange(customers), known, life)]
    fresh = {name: np.zeros(customers) for name in ("moved", "newborn", "retired", "raised")}
    for month in range(months):
        age = (starts[month] - birth) / (365.25 * DAY)
        need[month] = _traits(age, life, taste, fresh) @ weights
        address[month] = _addresses(life)
        segment[month] = segments(life, age)
        band[month] = np.searchsorted(AGE_BANDS, age)
        income[month], retired[month] = life.income, life.retired
        before, happened, life = life, *life_month(random, life, age, known < starts[month])
        fresh = {name: np.maximum(0.75 * old, happened[name]) for name, old in fresh.items()}
        who = np.flatnonzero(life.differs(before))
        at = starts[month] + random.random(len(who)) * (starts[month + 1] - starts[month] - 1.0)
        changes.append((who, at, life.take(who)))
    return People(known, birth, english, taste, latents, need, address, segment, band, income, retired, tuple(changes))


def segments(life: Life, age: Float64) -> Small:
    """The bank's segment of each customer, index into SEGMENTS: by retirement, income, then age."""
    chosen = np.select([life.retired, life.income > 50_000, life.income > 20_000, age < 30], [4, 3, 2, 0], default=1)
    return chosen.astype(np.int8)


def _first_life(random: np.random.Generator, age: Float64, taste: dict[str, Float64]) -> Life:
    n = len(age)
    retired = (age > 58) & (random.random(n) < 0.85)
    peak = 1.0 - ((age - 45.0) / 45.0) ** 2
    income = np.exp(random.normal(8.9, 0.55, n) + 0.7 * peak) * np.where(retired, 0.6, 1.0)
    married = random.random(n) < np.clip((age - 22.0) / 15.0, 0.02, 0.8)
    children = np.where(married, random.binomial(2, np.clip((age - 24.0) / 20.0, 0.0, 0.7)), 0)
    app = random.random(n) < np.clip(0.72 + 0.15 * taste["online"] - 0.006 * (age - 40.0), 0.05, 0.98)
    return Life(
        region=random.integers(0, 12, n).astype(np.int8),
        job=np.where(retired, 4, random.choice(4, n, p=[0.5, 0.25, 0.15, 0.1])).astype(np.int8),
        income=np.round(income, -1),
        married=married,
        children=children.astype(np.int8),
        homeowner=random.random(n) < np.clip((age - 22.0) / 40.0, 0.02, 0.75),
        app=app,
        wechat=random.random(n) < 0.6,
        email=random.random(n) < 0.65,
    )


def _draw_latents(random: np.random.Generator, age: Float64, taste: dict[str, Float64], income: Float64) -> Latents:
    n = len(age)
    old, rich = (age - 42.0) / 14.0, standard_income(income)
    preference = np.empty((n, len(CHANNELS)))
    for index, channel in enumerate(CHANNELS):
        mean, by_age, by_online, by_income = CHANNEL_TASTE[channel.id]
        signal = mean + by_age * old + by_online * taste["online"] + by_income * rich
        preference[:, index] = signal + random.normal(0.0, TASTE_NOISE, n)
    rhythm = random.gamma(0.6, size=(n, 3)) + 1e-3
    return Latents(
        preference=preference,
        rhythm=rhythm / rhythm.sum(axis=1, keepdims=True),
        weekend=random.normal(0.0, 0.5, n),
        persuadable=random.normal(0.0, 0.5, n),
        fatigue_sensitivity=random.gamma(4.0, 0.25, n),
        price_sensitivity=-0.7 * rich + random.normal(0.0, 0.6, n),
    )


def standard_income(income: Float64) -> Float64:
    """Log income on a scale where most people lie between -2 and 2."""
    return (np.log(income) - 9.4) / 0.65


def _traits(age: Float64, life: Life, taste: dict[str, Float64], fresh: dict[str, Float64]) -> Float32:
    old = (age - 42.0) / 14.0
    columns: dict[str, npt.NDArray[Any]] = {
        "age": old,
        "age_squared": old**2 - 0.9,
        "income": standard_income(life.income),
        "married": life.married - 0.55,
        "child": (life.children > 0) - 0.4,
        "homeowner": life.homeowner - 0.45,
        **taste,
        **fresh,
    }
    return np.column_stack([columns[name] for name in TRAITS]).astype(np.float32)


def _addresses(life: Life) -> Bool:
    everyone = np.ones(len(life.app), dtype=np.bool_)
    known = {"app_push": life.app, "in_app": life.app, "wechat": life.wechat, "email": life.email}
    return np.column_stack([known.get(channel.id, everyone) for channel in CHANNELS])
