"""Who gets which contact when contacts are scarce: the problem, which of its columns can matter, and its dual bound.

maximise   Σ value(c) · x(c)                  x(c) ∈ {0, 1}, one column c = customer × product × channel
such that  Σ x over each channel          ≤ capacity           messages of the whole campaign
           Σ cost(channel) · x            ≤ budget             catalogue currency
           Σ x over each customer         ≤ contacts
           Σ x over customer × product    ≤ 1                  nobody is offered the same twice
           Σ x over the columns of a key  ≤ most               for each further limit (caps of a customer)

Prices λ of capacity and μ of budget turn the scarce sums into costs, and the customers fall apart: each takes its best
columns by reduced value. What they would then be worth bounds every plan (Lagrangian duality), whatever the prices are.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from features.schema import Bool, Float64

Int64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Limit:
    """At most `most[k]` of the columns with `key` k may be chosen; key: int64 [c], -1 = none; most: int64 [K]."""

    rule: str
    key: Int64
    most: Int64


@dataclass(frozen=True)
class Problem:
    """customer, product, channel: int64 [c], positions; value: float64 [c], of the contact after its cost.

    contacts: int64 [n], per customer. capacity: float64 [H], inf = unlimited. cost: float64 [H], per message.
    """

    customer: Int64
    product: Int64
    channel: Int64
    value: Float64
    contacts: Int64
    capacity: Float64
    cost: Float64
    budget: float = np.inf
    limits: tuple[Limit, ...] = ()

    def __len__(self) -> int:
        return len(self.value)

    @property
    def offer(self) -> Int64:
        """int64 [c]: the same number for the same customer and product."""
        return self.customer * (int(self.product.max(initial=0)) + 1) + self.product

    def take(self, keep: Bool) -> Problem:
        """The same problem over some of its columns."""
        limits = tuple(replace(limit, key=limit.key[keep]) for limit in self.limits)
        columns = self.customer[keep], self.product[keep], self.channel[keep], self.value[keep]
        return Problem(*columns, self.contacts, self.capacity, self.cost, self.budget, limits)

    def spent(self, chosen: Bool | Float64) -> tuple[Float64, float]:
        """Messages per channel, float64 [H], and money."""
        weights = chosen.astype(np.float64)
        messages: Float64 = np.bincount(self.channel, weights=weights, minlength=len(self.cost)).astype(np.float64)
        return messages, float(messages @ self.cost)


@dataclass(frozen=True)
class Duals:
    """What one more unit would be worth. capacity: float64 [H], per message; budget: per unit of currency.

    limits: float64 [K] per limit of the problem, in its order. All at least 0.
    """

    capacity: Float64
    budget: float
    limits: tuple[Float64, ...] = field(default=())

    def per_message(self, cost: Float64) -> Float64:
        """float64 [H]: the opportunity price of one message, its capacity and its share of the budget."""
        price: Float64 = self.capacity + self.budget * cost
        return price

    def reduced(self, problem: Problem) -> Float64:
        """float64 [c]: value less the price of everything scarce that the column uses."""
        reduced: Float64 = problem.value - self.per_message(problem.cost)[problem.channel]
        for limit, dual in zip(problem.limits, self.limits, strict=True):
            limited = limit.key >= 0
            reduced[limited] -= dual[limit.key[limited]]
        return reduced


def free_of_charge(problem: Problem) -> Duals:
    """Prices of zero."""
    limits = tuple(np.zeros(len(limit.most)) for limit in problem.limits)
    return Duals(np.zeros(len(problem.cost)), 0.0, limits)


def prune(problem: Problem) -> Problem:
    """Without the columns that some best plan does without; neither the LP's value nor the best plan's changes.

    A contact worth nothing is never made. Of a customer's products on one channel and under the same limits only the
    best `contacts` can be needed: were a lower one chosen, one of those would be free to take its place at no more
    cost.
    With one contact, a channel that is never full also beats every channel that costs as much and is worth less.
    """
    possible = (problem.value > 0) & (problem.contacts[problem.customer] > 0)
    for limit in problem.limits:  # a limit of none is a ban
        limited = np.flatnonzero(limit.key >= 0)
        possible[limited[limit.most[limit.key[limited]] == 0]] = False
    first = problem.take(possible)
    alike = (*(limit.key for limit in first.limits), first.channel, first.customer)
    kept = first.take(places(first.value, *alike) < first.contacts[first.customer])
    return kept.take(~_dominated(kept)) if len(kept) and not kept.limits and kept.contacts.max() <= 1 else kept


def places(value: Float64, *groups: Int64) -> Int64:
    """int64 [c]: how many columns of the same group come before each, by value, greatest first; ties by position."""
    if not len(value):
        return np.empty(0, dtype=np.int64)
    order = np.lexsort((-value, *groups))  # the last group is the first to sort by
    starts = np.zeros(len(value), dtype=np.bool_)
    starts[0] = True
    for group in groups:
        starts[1:] |= np.diff(group[order]) != 0
    at = np.arange(len(value))
    place = np.empty(len(value), dtype=np.int64)
    place[order] = at - np.maximum.accumulate(np.where(starts, at, 0))
    return place


def _dominated(problem: Problem) -> Bool:
    """bool [c], one contact each: worth no more than a no more costly contact on a channel that cannot fill up."""
    never_full = problem.capacity[problem.channel] >= len(problem.contacts)
    dominated = np.zeros(len(problem), dtype=np.bool_)
    for channel in np.unique(problem.channel[never_full]):
        best = np.full(len(problem.contacts), -np.inf)  # [n]
        mine = problem.channel == channel
        np.maximum.at(best, problem.customer[mine], problem.value[mine])
        dearer = problem.cost[problem.channel] >= problem.cost[channel]
        dominated |= dearer & ~mine & (problem.value < best[problem.customer])
    return dominated


def choices(problem: Problem, duals: Duals) -> Bool:
    """bool [c]: what each customer takes at these prices: its best products, each on its best channel, worth more
    than their price."""
    reduced = duals.reduced(problem)
    worth_it = reduced > 0
    kept = np.flatnonzero(worth_it)
    if problem.contacts.max(initial=0) > 1:
        kept = kept[places(reduced[kept], problem.offer[kept]) == 0]
    kept = kept[places(reduced[kept], problem.customer[kept]) < problem.contacts[problem.customer[kept]]]
    chosen = np.zeros(len(problem), dtype=np.bool_)
    chosen[kept] = True
    return chosen


def bound(problem: Problem, duals: Duals) -> float:
    """No plan, and no LP solution, is worth more: the Lagrangian dual function at any prices (Everett 1963).

    λ · capacity + μ · budget + Σ η · most + Σ over customers of the greatest sum of reduced values.
    """
    total = float(duals.reduced(problem)[choices(problem, duals)].sum())
    finite = np.isfinite(problem.capacity)
    total += float(duals.capacity[finite] @ problem.capacity[finite])
    total += duals.budget * problem.budget if np.isfinite(problem.budget) else 0.0
    return total + sum(float(dual @ limit.most) for limit, dual in zip(problem.limits, duals.limits, strict=True))


def violations(problem: Problem, chosen: Bool, day: Int64, days: int) -> dict[str, int]:
    """How many sums of a plan exceed what they may be, by rule: counted anew from the plan alone.

    day: int64 [chosen], 1 … days. A channel's capacity is spread evenly over the days.
    """
    plan = problem.take(chosen)
    messages, money = plan.spent(np.ones(len(plan)))
    per_day = np.zeros((len(problem.cost), days + 1))
    np.add.at(per_day, (plan.channel, day), 1)
    contacts = np.bincount(plan.customer, minlength=len(problem.contacts))
    found = {
        "capacity of a channel": int((messages > problem.capacity).sum()),
        "capacity of a channel on a day": int((per_day > problem.capacity[:, None] / days).sum()),
        "budget": int(money > problem.budget),
        "contacts of a customer": int((contacts > problem.contacts).sum()),
        "one contact of a customer on a day": _repeated(plan.customer * (days + 1) + day),
        "one offer of a product to a customer": _repeated(plan.offer),
    }
    for limit in plan.limits:
        used = np.bincount(limit.key[limit.key >= 0], minlength=len(limit.most))
        found[limit.rule] = found.get(limit.rule, 0) + int((used > limit.most).sum())
    return found


def _repeated(keys: Int64) -> int:
    return int((np.unique(keys, return_counts=True)[1] > 1).sum())
