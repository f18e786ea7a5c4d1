"""Life events: what may change in a customer's profile within a month."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from features.schema import Bool, Float64
from features.simulation.calendar import Ints

REGIONS = (
    "Shanghai", "Beijing", "Guangdong", "Zhejiang", "Jiangsu", "Sichuan", "Hubei", "Shandong", "Fujian", "Hunan",
    "Shaanxi", "Liaoning",
)  # fmt: skip
JOBS = ("employee", "professional", "self_employed", "public_service", "retired", "unemployed")
RETIRED, UNEMPLOYED = JOBS.index("retired"), JOBS.index("unemployed")


@dataclass(frozen=True)
class Life:
    """The changing part of the profile of N customers."""

    region: npt.NDArray[np.int8]
    job: npt.NDArray[np.int8]
    income: Float64  # per month, catalogue currency
    married: Bool
    children: npt.NDArray[np.int8]
    homeowner: Bool
    app: Bool
    wechat: Bool
    email: Bool

    @property
    def retired(self) -> Bool:
        return np.asarray(self.job == RETIRED)

    def take(self, index: Ints) -> Life:
        return Life(*(getattr(self, field.name)[index] for field in fields(self)))

    def differs(self, other: Life) -> Bool:
        """True for each customer whose profile is not the same as in `other`."""
        changed = [getattr(self, field.name) != getattr(other, field.name) for field in fields(self)]
        return np.asarray(np.logical_or.reduce(changed))


def life_month(random: np.random.Generator, life: Life, age: Float64, may_change: Bool) -> tuple[dict[str, Bool], Life]:
    """One month of life for everybody of `may_change`: the events that wake needs, and the new state.

    Monthly rates are chosen so that about one customer in twenty changes something in a month.
    """

    def happens(rate: float, to_whom: Bool) -> Bool:
        return np.asarray(may_change & to_whom & (random.random(len(age)) < rate))

    working = life.job < RETIRED
    moved = happens(0.007, age < 75)
    wed = happens(0.010, ~life.married & (age > 22) & (age < 42))
    newborn = happens(0.010, life.married & (age < 44) & (life.children < 3))
    raised = happens(0.012, working & (age < 58))
    lost = happens(0.003, working) & ~raised
    hired = happens(0.150, life.job == UNEMPLOYED)
    retired = happens(0.050, working & (age >= 60)) & ~lost
    bought = happens(0.003, ~life.homeowner & (age > 24)) | (moved & ~life.homeowner & (random.random(len(age)) < 0.4))
    income = life.income * np.where(raised, 1.15 + 0.35 * random.random(len(age)), 1.0)
    income = income * np.where(lost, 0.4, 1.0) * np.where(hired, 2.2, 1.0) * np.where(retired, 0.6, 1.0)
    job = np.select([retired, lost, hired], [RETIRED, UNEMPLOYED, 0], default=life.job)
    new = replace(
        life,
        region=np.where(moved, random.integers(0, len(REGIONS), len(age)), life.region).astype(np.int8),
        job=job.astype(np.int8),
        income=np.round(income, -1),
        married=life.married | wed,
        children=(life.children + newborn).astype(np.int8),
        homeowner=life.homeowner | bought,
        app=life.app | happens(0.010, age < 80),
        wechat=life.wechat | happens(0.008, age < 80),
        email=life.email | happens(0.004, age < 80),
    )
    return {"moved": moved, "newborn": newborn, "retired": retired, "raised": raised}, new
