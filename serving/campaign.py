"""A campaign: whom to contact on which day, through which channel, with which product, under capacity and budget.

    score → value of every allowed contact → prune → relax (prices, bound) → round → days → plan

Every contact is scored and valued as the real-time decision would do it at the customer's `as_of`; then all customers
compete for the messages that there are. What comes out beside the plan are the prices of the channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from features.columns import AS_OF, CUSTOMER_ID
from features.errors import InputError
from features.progress import SILENT, Progress
from features.schema import Bool, Float64
from serving.allocation import Int64, Problem, violations
from serving.campaign_parts import Part, Terms, Worths, joined, part_of
from serving.prices import Prices
from serving.relaxation import INTEGRAL, Relaxed, best, relax
from serving.rounding import on_days, rounded

if TYPE_CHECKING:
    from features.catalog import Catalog

PRODUCT_ID = "product_id"
CHANNEL = "channel"
DAY = "day"


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
    blocks: Iterable[Worths],
    terms: Terms,
    progress: Progress = SILENT,
) -> Campaign:
    """The plan for the customers of `entities` (each once), whose allowed contacts come in `blocks`, in their order."""
    check_once(entities)
    parts = (part_of(catalog, len(entities), block, terms) for block in blocks)
    return plan_parts(catalog, unit, entities, np.arange(len(entities)), parts, terms, progress)


def plan_parts(
    catalog: Catalog,
    unit: str,
    entities: pd.DataFrame,
    order: Int64,
    parts: Iterable[Part],
    terms: Terms,
    progress: Progress = SILENT,
) -> Campaign:
    """As `plan_campaign`, from what was kept of the blocks; order: int64 [n], whose turn it is in them."""
    problem, possible = joined(catalog, order, parts, terms)
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


def best_or_rounded(problem: Problem, relaxed: Relaxed) -> Bool:
    """bool [c]: the best plan of a small campaign; of a large one the relaxation's, rounded."""
    found = best(problem) if 0 < len(problem) <= INTEGRAL else None
    return rounded(problem, relaxed.x if found is None else found, relaxed.duals)


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
