"""What the best possible ranking of a simulated bank's next products is: from its truth, at the moments of take-ups.

At the moment of a take-up something was taken, and the question is what. Given all that the simulation knows just
before, product p is the one with probability h_p / sum of h, h_p being the rate at which customers take it up then:

h_p = organic intensity of p + sum over clicked messages about p of  q f(d) / (1 - q F(d)),   0 where p is held

d: time since the click. f, F: density and distribution of the time from click to take-up. q: probability that the click
leads to a take-up, r / (r + (1 - r) c) with r = P(take-up | opened), c = P(click | opened, no take-up), as only opened
messages are clicked, and those that lead to a take-up always are. Intensities stay as they were at the decision before.
To rank by h is to be right as often as anybody can be who does not know the draws to come.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import norm

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Table
from features.importing import Bank
from features.schema import Bool, Float32, Float64, Int64, Texts
from features.simulation.calendar import DAY, from_epoch, month_of, month_starts
from features.simulation.parameters import TRAITS, need_weights
from features.simulation.population import People, draw_people, standard_income
from features.simulation.truth import MONTH_DAYS, Truth
from features.simulation.truth_files import MARKER, TRUTH, held_before, load_decisions, load_truth

CLICK_TO_TAKE_UP = (10.0, 1.2)
"""Mean and standard deviation of ln(seconds), see `features.simulation.reactions.react`."""
LATEST_DAYS = 14.0
LONGEST_STEP = 15 * DAY
"""A decision longer ago than that is not the last one: the bank decided nothing then, and kept no record of when."""
TASTES = ("travel", "online", "saver", "risk")
EVENTS = ("moved", "newborn", "retired", "raised")
SETTLED = ("age", "age_squared", "income", "married", "child", "homeowner")


@dataclass(frozen=True)
class Needs:
    """What the needs of N customers over M months for P products are made of; float32, on the scale of the need.

    settled: [M, N, P], by age, income and family. taste: [N, P]. events: [M, N, P], by fresh life events.
    """

    settled: Float32
    taste: Float32
    events: Float32

    @classmethod
    def of(cls, directory: Path, truth: Truth) -> Needs:
        """From the people, who are drawn again as the simulation drew them."""
        marker = json.loads((directory / TRUTH / MARKER).read_text(encoding="utf-8"))
        stream = np.random.Generator(np.random.SFC64(np.random.SeedSequence(marker["seed"]).spawn(6)[0]))
        starts = month_starts(marker["months"])
        people = draw_people(stream, marker["customers"], starts)
        assert np.array_equal(people.need, truth.need), "these are not the people of this bank"
        weights = dict(zip(TRAITS, need_weights(), strict=True))
        taste = np.column_stack([people.taste[name] for name in TASTES]) @ np.stack([weights[name] for name in TASTES])
        settled = np.stack([_settled(people, month, starts) for month in range(len(starts) - 1)])
        settled = (settled @ np.stack([weights[name] for name in SETTLED])).astype(np.float32)
        events = people.need - settled - taste.astype(np.float32)
        return cls(settled, taste.astype(np.float32), events)


def _settled(people: People, month: int, starts: Float64) -> Float64:
    """Traits [N, len(SETTLED)] at the start of a month."""
    state = people.changes[0][2]
    now = {name: getattr(state, name).copy() for name in ("income", "married", "children", "homeowner")}
    for who, _, state in people.changes[1 : month + 1]:
        for name, values in now.items():
            values[who] = getattr(state, name)
    old = ((starts[month] - people.birth) / (365.25 * DAY) - 42.0) / 14.0
    family = (now["married"] - 0.55, (now["children"] > 0) - 0.4, now["homeowner"] - 0.45)
    return np.column_stack([old, old**2 - 0.9, standard_income(now["income"]), *family])


@dataclass(frozen=True)
class Rates:
    """Of n moments, float64 [n, P]: take-ups per day by themselves, and through messages; held: bool [n, P].

    customer, month: int64 [n], where the need stands in `Truth.need`.
    """

    organic: Float64
    message: Float64
    held: Bool
    customer: Int64
    month: Int64

    @property
    def all(self) -> Float64:
        return self.organic + self.message


class Oracle:
    """Knows everything of a simulated bank but the draws to come. bank: the tables that its features were built of."""

    def __init__(self, directory: Path, bank: Bank) -> None:
        self.truth = load_truth(directory)
        self.holdings = bank.tables[Table.HOLDINGS]
        decisions = load_decisions(directory)
        place = pd.Index(self.truth.customer_ids)
        self._owner = place.get_indexer(decisions[CUSTOMER_ID].to_pandas()).astype(np.int64)
        self._decided_at = _moments(decisions)
        self._clicks = _clicks(bank.tables[Table.TIMELINE], decisions, self.truth)
        self._place = place

    def at(self, customer_id: Texts, as_of: Int64) -> Rates:
        """The rates just after `as_of` (µs since 1970 UTC, [n])."""
        customer = self._place.get_indexer(pd.Index(customer_id)).astype(np.int64)
        when = from_epoch((as_of + 1) / 1e6)
        held = held_before(self.holdings, self.truth, customer, when)
        began = self._last_decision(customer, when)
        held_then = held_before(self.holdings, self.truth, customer, began + 1e-3) & held
        need = self.truth.full_need(customer, began, held_then)
        organic = np.where(held, 0.0, self.truth.parameters.intensity * np.exp(need)) / MONTH_DAYS
        message = np.where(held, 0.0, self._through_messages(customer, when))
        return Rates(organic, message, held, customer, month_of(began, self.truth.month_starts))

    def _last_decision(self, customer: Int64, when: Float64) -> Float64:
        """Seconds [n] of each customer's last decision before; `when` itself where there was none lately."""
        order = np.lexsort((self._decided_at, self._owner))
        owner, at = self._owner[order], self._decided_at[order]
        moments = np.unique(at)
        width = len(moments) + 1
        keys = owner * width + np.searchsorted(moments, at)
        found = np.searchsorted(keys, customer * width + np.searchsorted(moments, when)) - 1
        safe = np.maximum(found, 0)
        known = (found >= 0) & (owner[safe] == customer) & (when - at[safe] < LONGEST_STEP)
        return np.where(known, at[safe], when)

    def _through_messages(self, customer: Int64, when: Float64) -> Float64:
        """Take-ups per day through clicked messages, float64 [n, P]."""
        asked = pd.DataFrame({"customer": customer, "when": when, "row": np.arange(len(when))})
        pairs = asked.merge(self._clicks, on="customer")
        late = pairs["when"] - pairs["at"]
        pairs = pairs[(late > 0) & (late < LATEST_DAYS * DAY)]
        late, chance = (pairs["when"] - pairs["at"]).to_numpy(), pairs["chance"].to_numpy()
        mean, deviation = CLICK_TO_TAKE_UP
        z = (np.log(late) - mean) / deviation
        density = norm.pdf(z) / (deviation * late) * DAY
        rate = np.zeros((len(when), len(self.truth.product_ids)))
        hazard = chance * density / (1.0 - chance * norm.cdf(z))
        np.add.at(rate, (pairs["row"].to_numpy(), pairs["product"].to_numpy()), hazard)
        return rate


def shares(rates: Float64, available: Bool) -> Float64:
    """Probabilities of being the one, float64 [n, P]; NaN where not available."""
    known = np.where(available, rates, 0.0)
    total = known.sum(axis=1, keepdims=True)
    return np.where(available, known / np.where(total > 0, total, 1.0), np.nan)


def _clicks(timeline: pa.Table, decisions: pa.Table, truth: Truth) -> pd.DataFrame:
    """Clicked messages: customer, product (positions), at (seconds), chance (that a take-up follows)."""
    kinds = pa.array([str(Kind.CLICKED), str(Kind.REPLIED)])
    clicked = timeline.filter(pc.is_in(timeline[Event.KIND], kinds))
    clicked = clicked.filter(pc.is_valid(clicked[Event.DECISION_ID]))
    row = pc.index_in(clicked[Event.DECISION_ID], decisions["decision_id"].combine_chunks()).to_numpy().astype(np.int64)
    respond, click = (decisions[name].to_numpy()[row] for name in ("p_respond", "p_click"))
    return pd.DataFrame(
        {
            "customer": pd.Index(truth.customer_ids).get_indexer(clicked[CUSTOMER_ID].to_pandas()),
            "product": pd.Index(truth.product_ids).get_indexer(clicked[Event.PRODUCT_ID].to_pandas()),
            "at": _moments(clicked),
            "chance": respond / (respond + (1.0 - respond) * click),
        }
    )


def _moments(table: pa.Table) -> Float64:
    """Seconds of the simulated calendar of each row."""
    return from_epoch(table[EVENT_TIMESTAMP].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy() / 1e6)
