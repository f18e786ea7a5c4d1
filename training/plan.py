"""What a training run is about: which question, from which rows, up to which moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from features.errors import InputError
from features.times import micros
from serving.question import Question
from training.attribution import LAST_TOUCH, check_rule
from training.dataset import Dataset
from training.labels import DAY, cut, first_known, last_fact, told_until
from training.outcomes import Outcomes, outcomes
from training.spine import ProductSource, Spine, default_horizon, product_source, product_spine, snapshot_times
from training.spine_channels import ChannelSource, channel_source, channel_spine
from training.split import Split, by_customer, by_time

if TYPE_CHECKING:
    from features.importing import Bank

NEXT_BEST_PRODUCT = "next-best-product"
CHANNEL_CHOICE = "channel-choice"
MODELS = (NEXT_BEST_PRODUCT, CHANNEL_CHOICE)
RESPONSE_DAYS = 7.0
"""How long a message is given to be answered."""
SplitBy = Literal["time", "customer"]


@dataclass(frozen=True)
class Order:
    """What somebody asked for. horizon_days, until: None = the default horizon, all of the data."""

    model: str
    family: str = "all"
    entities: pd.DataFrame | None = None
    horizon_days: float | None = None
    until: datetime | None = None
    seed: int = 0
    split: SplitBy = "time"
    attribution: str = LAST_TOUCH
    """The rule by which a take-up that names no decision gets one."""
    tune: int = 0
    """Settings that each family tries before it is fitted; 0 = its defaults."""


@dataclass(frozen=True)
class Plan:
    """An order met with the tables: everything about the rows is fixed by it. begin, end, horizon: µs."""

    order: Order
    question: Question
    source: ProductSource | ChannelSource
    begin: int
    end: int
    horizon: int
    told: int
    """µs until which the tables tell of take-ups: from there snapshots count back."""

    def spine(self, bank: Bank, end: int, since: int = 0, decided: Outcomes | None = None) -> Spine:
        """The rows since <= as_of whose label is known at `end`; the bank holds nothing later than `end`.

        decided: what `outcomes` found of the same bank and end, where it was asked already; None: found here.
        """
        order = self.order
        if self.source == "messages" or self.source == "touches":
            return channel_spine(
                bank, self.source, end, self.horizon, order.entities, since, attribution=order.attribution
            )
        decided = decided or self.outcomes(bank, end)
        return product_spine(bank, self.source, end, self.horizon, order.entities, since, decided=decided)

    def outcomes(self, bank: Bank, end: int) -> Outcomes | None:
        """What became of the decisions among the rows by `end`; None where no row is a decision."""
        if self.source == "decisions" or (self.source == "occasions" and bank.served.known.num_rows):
            found = outcomes(bank, end, self.horizon, self.order.attribution)
            return found if self.source == "decisions" else found.of_ledger
        return None

    def split(self, data: Dataset) -> Split:
        """By time with an embargo; by customer where that was asked for, or where all entities are of one moment."""
        spine = data.spine
        if self.order.split == "customer" or (self.source == "entities" and len(np.unique(spine.as_of)) < 3):
            return by_customer(spine.customer_id)
        if self.source != "occasions":
            return by_time(spine.as_of, spine.closes, spine.sort)
        # Served decisions are of late, perhaps all in one part; only together with snapshots is each part sure of some.
        sort = np.where(spine.sort == "decision", "snapshot", spine.sort)
        return by_time(spine.as_of, spine.closes, sort, snapshot_times(self.begin, self.told, self.horizon))

    @property
    def end_time(self) -> datetime:
        return datetime.fromtimestamp(self.end / 1e6, UTC)


def make_plan(order: Order, bank: Bank) -> tuple[Plan, Bank]:
    """The plan, and the bank as it was known at its end. Raises ModelNotPossible, InputError."""
    end = last_fact(bank)
    if order.until is not None:
        end = min(end, micros(order.until))
    bank = cut(bank, end)
    if bank.newest is None:
        raise InputError(f"--until hides everything later, however nothing is left by {order.until}; use a later time")
    check_rule(order.attribution)
    begin, told = int(first_known(bank).min()), told_until(bank, end)
    asked = None if order.horizon_days is None else int(order.horizon_days * DAY)
    catalog = bank.catalog
    if order.model == NEXT_BEST_PRODUCT:
        products = product_source(bank, order.entities)
        horizon = asked or default_horizon(bank, products, told if products == "occasions" else end)
        question = Question(order.model, catalog.product_ids, "product", "joint", True, horizon / DAY)
        return Plan(order, question, products, begin, end, horizon, told), bank
    if order.model == CHANNEL_CHOICE:
        channels = channel_source(bank)
        horizon = asked or int(RESPONSE_DAYS * DAY)
        outbound = channels == "messages"
        link: Literal["each", "joint"] = "each" if outbound else "joint"
        question = Question(order.model, catalog.channel_ids, "channel", link, outbound, horizon / DAY)
        return Plan(order, question, channels, begin, end, horizon, told), bank
    raise InputError(f"models are {', '.join(MODELS)}, however {order.model!r} was asked for")
