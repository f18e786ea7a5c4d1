"""Calibration decay: do as many customers take up as was expected of them, week after week?

    ratio = observed / expected        expected: Σ of the probabilities that were served

Take-ups are few and counted, so the interval is that of a Poisson count over a known expectation (Garwood 1936). With
small probabilities it is a little too wide, never too narrow. Decisions count when their window has closed; what never
reached its customer is left out, as in training.

The arm matters: the agent picks what looks best, so it picks over-estimates too (the optimizer's curse, Smith & Winkler
2006) and its ratio lies below 1 even for a calibrated model. The random arm does not pick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import chi2

from features.columns import CUSTOMER_ID, Event
from features.schema import Bool, Float64
from training.labels import DAY, take_ups
from training.monitoring.served_log import Decided, weekly
from training.outcomes import outcomes
from training.spine import taken_within

if TYPE_CHECKING:
    from features.importing import Bank

CONTACTS, PRODUCTS = "contacts", "products"
"""What is judged: P(take-up through the message), or P(take-up of a product at all)."""
LEVEL = 0.95
LEAST, MOST = 0.8, 1.25
"""A ratio within these bounds is as good as calibrated: money is not decided by a fifth."""


@dataclass(frozen=True)
class Ratio:
    """name: a week's first day, or an arm. pairs: probabilities judged. observed: take-ups. low, high: of the ratio."""

    name: str
    pairs: int
    expected: float
    observed: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.observed / self.expected if self.expected else np.nan

    @property
    def off(self) -> bool:
        """Whether it surely lies outside LEAST to MOST."""
        return self.expected > 0 and (self.high < LEAST or self.low > MOST)


@dataclass(frozen=True)
class Decay:
    """One kind of probability against what happened.

    what: see CONTACTS and PRODUCTS. whole: all that could be judged. weeks: oldest first; their intervals hold together
    (Bonferroni). arms: by name. open: decisions whose window had not closed. lost: those that never reached their
    customer, or that no offer of the timeline names.
    """

    what: str
    whole: Ratio
    weeks: tuple[Ratio, ...]
    arms: tuple[Ratio, ...]
    open: int
    lost: int

    @property
    def alarms(self) -> list[Ratio]:
        """What is off: the whole, else the weeks that are."""
        return [self.whole] if self.whole.off else [week for week in self.weeks if week.off]


def ratio(name: str, expected: Float64, happened: Bool, level: float = LEVEL) -> Ratio:
    """expected: float64 [n], probabilities. happened: bool [n]."""
    total, count = float(expected.sum()), int(happened.sum())
    tail = (1 - level) / 2
    low = float(chi2.ppf(tail, 2 * count)) / 2 if count else 0.0
    high = float(chi2.isf(tail, 2 * (count + 1))) / 2
    bounds = (low / total, high / total) if total else (0.0, np.inf)
    return Ratio(name, len(expected), total, count, *bounds)


def of_contacts(found: Sequence[Decided], bank: Bank, end: int, horizon: int) -> Decay:
    """Contacts: the probability of a take-up through the message, and whether a conversion named the decision.

    Only such conversions taught the response to messages (`features.evidence`), so only they are expected here. found:
    oldest first. end, horizon: µs; the horizon is for products without a response window of their own.
    """
    contacts = [one for one in found if one.action[1] is not None and np.isfinite(one.expected)]
    known = outcomes(bank, end, horizon)
    offers = known.offers.assign(happened=False)
    offers.loc[np.unique(known.attributed.offer[known.attributed.named]), "happened"] = True
    offers["happened"] &= offers["label"]
    offers = offers.drop_duplicates(Event.DECISION_ID)[[Event.DECISION_ID, "happened", "left_out", "closes"]]
    asked = _frame(contacts, [one.expected for one in contacts]).merge(offers, on=Event.DECISION_ID, how="left")
    still_open = int((asked["closes"] > end).sum())
    judged = asked[asked["closes"].notna() & asked["left_out"].isna()]
    return _decay(CONTACTS, judged, end, still_open, len(asked) - len(judged) - still_open)


def of_products(found: Sequence[Decided], bank: Bank, told: int, horizon: int) -> Decay:
    """Products: the served probabilities of all that could be offered, and what was taken up, whoever offered it.

    One decision per customer and week, the first. told: µs until which take-ups are told. horizon: µs, the model's.
    """
    chosen = [one for one in found if one.offered]
    frame = _frame(chosen, [1.0] * len(chosen))
    frame["week"] = weekly(frame["at"].to_numpy(np.int64), told)
    first = frame.drop_duplicates([CUSTOMER_ID, "week"])
    closed = first[first["at"] + horizon <= told]
    products = bank.catalog.product_ids
    offered = np.array(
        [[chosen[place].offered.get(name, np.nan) for name in products] for place in closed.index], dtype=np.float64
    ).reshape(len(closed), len(products))
    at = closed["at"].to_numpy(np.int64)
    taken = taken_within(bank, take_ups(bank), closed[CUSTOMER_ID].to_numpy(dtype=object), at, at + horizon)
    row, product = np.nonzero(np.isfinite(offered))
    pairs = closed.iloc[row].assign(expected=offered[row, product], happened=taken[row, product])
    return _decay(PRODUCTS, pairs, told, len(first) - len(closed), 0)


def _frame(found: Sequence[Decided], expected: Sequence[float]) -> pd.DataFrame:
    columns = {
        Event.DECISION_ID: [one.decision_id for one in found],
        CUSTOMER_ID: [one.customer_id for one in found],
        "at": [one.at for one in found],
        "arm": [one.arm for one in found],
        "expected": expected,
    }
    return pd.DataFrame(columns).astype({"at": "int64", "expected": "float64"})


def _decay(what: str, judged: pd.DataFrame, end: int, still_open: int, lost: int) -> Decay:
    """judged: at, arm, expected and happened of what counts."""
    week = weekly(judged["at"].to_numpy(np.int64), end)
    weeks = np.unique(week).tolist()
    level = 1 - (1 - LEVEL) / max(len(weeks), 1)
    return Decay(
        what,
        _ratio("all", judged, LEVEL),
        tuple(_ratio(_day(start), judged[week == start], level) for start in weeks),
        tuple(_ratio(str(arm), part, LEVEL) for arm, part in judged.groupby("arm")),
        still_open,
        lost,
    )


def _ratio(name: str, part: pd.DataFrame, level: float) -> Ratio:
    return ratio(name, part["expected"].to_numpy(np.float64), part["happened"].to_numpy(np.bool_), level)


def _day(at: int) -> str:
    return str(np.datetime64(at // DAY, "D"))
