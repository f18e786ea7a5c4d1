"""A campaign: whom to contact on which day, through which channel, with which product, under capacity and budget.

    score → value of every allowed contact → prune → relax (prices, bound) → round → days → plan

Every contact is scored and valued as the real-time decision would do it at the customer's `as_of`; then all customers
compete for the messages that there are. What comes out beside the plan are the prices of the channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from features.columns import AS_OF, CUSTOMER_ID
from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Bool, Float64
from serving.allocation import Int64, Limit, Problem, prune, violations
from serving.prices import Prices
from serving.relaxation import INTEGRAL, Relaxed, best, relax
from serving.rounding import on_days, rounded

if TYPE_CHECKING:
    from features.catalog import Catalog

PRODUCT_ID = "product_id"
CHANNEL = "channel"
DAY = "day"


@dataclass(frozen=True)
class Terms:
    """What a campaign may use. budget: catalogue currency for all its messages, None = unlimited."""

    days: int = 1
    contacts: int = 1
    """Per customer in the whole campaign."""
    budget: float | None = None

    def __post_init__(self) -> None:
        for name, number in (("days", self.days), ("contacts per customer", self.contacts)):
            if not 1 <= number <= 366:
                raise InputError(f"a campaign has 1 to 366 {name}, however it is {number}")
        if self.budget is not None and not (np.isfinite(self.budget) and self.budget >= 0):
            raise InputError(f"a budget is a finite amount of at least 0, however it is {self.budget}")


@dataclass(frozen=True)
class Worths:
    """Allowed contacts of consecutive customers. value: float64 [b, P, H], NaN = not allowed."""

    value: Float64
    limits: tuple[tuple[str, Bool, Int64], ...] = ()
    """Caps: rule, bool [P, H] = the contacts it counts, int64 [b] = how many of them are left to each customer."""


@dataclass(frozen=True)
class Campaign:
    """plan: one line per contact. gap: share of `bound` that the plan may lie below the best one, at most.

    bound: no plan is worth more; the Lagrangian dual at `prices`, computed over all customers. violations: by rule.
    """

    plan: pd.DataFrame
    prices: Prices
    value: float
    bound: float
    violations: dict[str, int]
    customers: int
    possible: int
    considered: int
    messages: dict[str, int]
    spent: float

    @property
    def gap(self) -> float:
        return max(0.0, (self.bound - self.value) / self.bound) if self.bound > 0 else 0.0


def plan_campaign(
    catalog: Catalog,
    unit: str,
    entities: pd.DataFrame,
    blocks: Iterator[Worths],
    terms: Terms,
    progress: Progress = SILENT,
) -> Campaign:
    """The plan for the customers of `entities` (each once), whose allowed contacts come in `blocks`, in their order."""
    check_once(entities)
    problem, possible = gather(catalog, len(entities), blocks, terms)
    relaxed = relax(problem, progress)
    with progress.step(f"plan {terms.days} days"):
        chosen = best_or_rounded(problem, relaxed)
        day = on_days(problem.customer[chosen], problem.channel[chosen], terms.days)
    plan = problem.take(chosen)
    messages, spent = plan.spent(np.ones(len(plan)))
    price = relaxed.duals.per_message(problem.cost)
    starts, ends = _period(entities, terms.days)
    return Campaign(
        plan=_frame(catalog, entities, plan, day, price),
        prices=Prices(
            unit,
            starts,
            ends,
            dict(zip(catalog.channel_ids, price.tolist(), strict=True)),
            relaxed.duals.budget,
        ),
        value=float(plan.value.sum()),
        bound=relaxed.bound,
        violations=violations(problem, chosen, day, terms.days),
        customers=len(entities),
        possible=possible,
        considered=len(problem),
        messages={name: int(count) for name, count in zip(catalog.channel_ids, messages, strict=True)},
        spent=spent,
    )


def check_once(entities: pd.DataFrame) -> None:
    """InputError without customers, and when one is listed twice: what a customer may get is shared by all its rows."""
    if not len(entities):
        raise InputError("a campaign needs at least one customer, however the entities are empty")
    twice = entities[CUSTOMER_ID].duplicated()
    if twice.any():
        raise InputError(
            f"a campaign lists each customer once, however {int(twice.sum())} rows repeat one, the first "
            f"{entities[CUSTOMER_ID][twice].iloc[0]!r}; keep one as_of of each"
        )


def gather(catalog: Catalog, customers: int, blocks: Iterator[Worths], terms: Terms) -> tuple[Problem, int]:
    """The pruned problem, and how many contacts were possible; blocks are pruned one by one, so that they fit."""
    capacity = np.array([np.inf if one.capacity is None else one.capacity * terms.days for one in catalog.channels])
    cost = np.array([channel.cost for channel in catalog.channels])
    contacts = np.full(customers, min(terms.contacts, terms.days), dtype=np.int64)
    budget = np.inf if terms.budget is None else terms.budget
    parts: list[Problem] = []
    start = possible = 0
    for block in blocks:
        open_, caps = np.isfinite(block.value), block.limits
        if contacts.max(initial=0) <= 1:  # then a cap is used up already, or cannot be
            for _, counts, most in caps:
                open_ &= (most > 0)[:, None, None] | ~counts
            caps = ()
        customer, product, channel = np.nonzero(open_)
        value = block.value[customer, product, channel]
        limits = tuple(
            Limit(rule, np.where(counts[product, channel], start + customer, -1), _at(most, start, customers))
            for rule, counts, most in caps
        )
        columns = Problem(start + customer, product, channel, value, contacts, capacity, cost, budget, limits)
        parts.append(prune(columns))
        possible += len(columns)
        start += len(block.value)
    return _joined(parts, Problem(*_NO_COLUMNS, contacts, capacity, cost, budget)), possible


def best_or_rounded(problem: Problem, relaxed: Relaxed) -> Bool:
    """bool [c]: the best plan of a small campaign; of a large one the relaxation's, rounded."""
    found = best(problem) if 0 < len(problem) <= INTEGRAL else None
    return rounded(problem, relaxed.x if found is None else found, relaxed.duals)


_NO_COLUMNS = (
    np.empty(0, dtype=np.int64),
    np.empty(0, dtype=np.int64),
    np.empty(0, dtype=np.int64),
    np.empty(0, dtype=np.float64),
)


def _at(most: Int64, start: int, customers: int) -> Int64:
    """int64 [n]: the block's numbers at the places of its customers."""
    everybody = np.zeros(customers, dtype=np.int64)
    everybody[start : start + len(most)] = most
    return everybody


def _joined(parts: list[Problem], empty: Problem) -> Problem:
    """One problem of all blocks; a limit's customers lie in one block each, so that their numbers add up."""
    if not parts:
        return empty
    limits = tuple(
        Limit(same[0].rule, np.concatenate([one.key for one in same]), np.sum([one.most for one in same], axis=0))
        for same in zip(*(part.limits for part in parts), strict=True)
    )
    return Problem(
        np.concatenate([part.customer for part in parts]),
        np.concatenate([part.product for part in parts]),
        np.concatenate([part.channel for part in parts]),
        np.concatenate([part.value for part in parts]),
        empty.contacts,
        empty.capacity,
        empty.cost,
        empty.budget,
        limits,
    )


def _period(entities: pd.DataFrame, days: int) -> tuple[datetime, datetime]:
    """From the first as_of to `days` after the last: while the campaign runs for any of its customers."""
    times = entities[AS_OF]
    return times.min().to_pydatetime(), times.max().to_pydatetime() + timedelta(days=days)


def _frame(catalog: Catalog, entities: pd.DataFrame, plan: Problem, day: Int64, price: Float64) -> pd.DataFrame:
    """customer_id, as_of, day (1 = first), product_id, channel, value (after cost), cost, price; by customer, day."""
    order = np.lexsort((day, plan.customer))
    customer, channel = plan.customer[order], plan.channel[order]
    return pd.DataFrame(
        {
            CUSTOMER_ID: entities[CUSTOMER_ID].to_numpy(dtype=object)[customer],
            AS_OF: entities[AS_OF].array[customer],
            DAY: day[order].astype(np.int32),
            PRODUCT_ID: np.asarray(catalog.product_ids, dtype=object)[plan.product[order]],
            CHANNEL: np.asarray(catalog.channel_ids, dtype=object)[channel],
            "value": plan.value[order],
            "cost": plan.cost[channel],
            "price": price[channel],
        }
    )
