"""What customers hold: first holdings, take-ups by themselves and through messages, closings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Holding
from features.schema import Bool, Float64
from features.simulation.calendar import DAY, Ints, to_micros
from features.simulation.catalog import PRODUCTS
from features.simulation.files import texts, timestamps
from features.simulation.parameters import PRODUCT_NUMBERS
from features.simulation.population import People
from features.simulation.truth import MONTH_DAYS, Truth, sigmoid

_FIRST = np.array([PRODUCT_NUMBERS[product.id][1] for product in PRODUCTS])
_DAYS_HELD = np.array([PRODUCT_NUMBERS[product.id][3] for product in PRODUCTS])
_FIXED_TERM = np.array([PRODUCT_NUMBERS[product.id][4] for product in PRODUCTS])
SHORTEST_DAYS = 20.0
"""Longer than any interval between two decisions, so nothing is opened and closed within one."""


@dataclass(frozen=True)
class Conversions:
    """Take-ups through messages that happened: who, what, when, and the message behind each."""

    customer: Ints
    product: Ints
    at: Float64
    decision: Ints
    message: Ints
    channel: Ints
    content: Ints


class Ownership:
    """The holdings of N customers, moved forward interval by interval.

    A message that worked waits here as *due* until its time; whichever comes first, the message or the customer's
    own wish, opens the product, and the other one is void.
    """

    def __init__(self, random: np.random.Generator, truth: Truth, held: Bool, since: Float64) -> None:
        """held: bool [N, P], what customers have; since: [N], from when on, the moment at which those were opened."""
        self._random = random
        self._truth = truth
        self.held = held
        self._closes = np.full(held.shape, np.inf)
        self._due = np.full(held.shape, np.inf)
        self._reason = np.full((4, *held.shape), -1, dtype=np.int32)  # decision, message, channel, content
        self._log: list[tuple[Ints, Ints, Float64, bool]] = []
        customer, product = np.nonzero(held)
        self._open(customer, product, since[customer])

    def expect(self, customer: Ints, product: Ints, at: Float64, reason: npt.NDArray[np.int64]) -> None:
        """Take-ups that messages lead to at `at`; reason [4, n]: decision, message, channel, content."""
        sooner = at < self._due[customer, product]
        customer, product = customer[sooner], product[sooner]
        self._due[customer, product] = at[sooner]
        self._reason[:, customer, product] = reason[:, sooner]

    def advance(self, begin: Float64, finish: Float64) -> Conversions:
        """Live from `begin` to `finish` [N] (nothing happens where begin >= finish): returns what messages sold."""
        length = np.maximum(finish - begin, 0.0)
        everyone = np.arange(len(begin))
        # Intensities are those at the start of the interval.
        chance = -np.expm1(-self._truth.organic(everyone, begin, self.held) * (length / DAY / MONTH_DAYS)[:, None])
        wished = self._random.random(chance.shape) < chance
        customer, product = np.nonzero(wished)
        wish = np.full(chance.shape, np.inf)
        wish[customer, product] = begin[customer] + self._random.random(len(customer)) * length[customer]
        over = self._due < finish[:, None]
        # Nothing due is held: an offer goes to non-holders only, and any other opening makes it void below.
        sold = over & (self._due < wish)
        taken = sold | wished
        ended = self.held & (self._closes < finish[:, None])

        sold_customer, sold_product = np.nonzero(sold)
        reason = self._reason[:, sold_customer, sold_product].astype(np.int64)
        conversions = Conversions(sold_customer, sold_product, self._due[sold], *reason)
        customer, product = np.nonzero(taken)
        self._open(customer, product, np.minimum(np.where(sold, self._due, np.inf), wish)[taken])
        customer, product = np.nonzero(ended)
        self._log.append((customer, product, self._closes[ended], False))
        self.held = (self.held | taken) & ~ended
        # Whatever a message was to sell is void once the product was opened otherwise.
        self._due[over | taken] = np.inf
        return conversions

    def log(self, end: float) -> tuple[Ints, Ints, Float64, Bool]:
        """All changes before `end` in order of time: customers, products, times, opened (else closed)."""
        opened = np.concatenate([np.full(len(at), flag) for _, _, at, flag in self._log])
        customer, product = (np.concatenate([item[i] for item in self._log]) for i in (0, 1))
        at = np.concatenate([item[2] for item in self._log])
        order = np.lexsort((product, customer, at))
        order = order[at[order] < end]
        return customer[order], product[order], at[order], opened[order]

    def _open(self, customer: Ints, product: Ints, at: Float64) -> None:
        drawn = self._random.exponential(size=len(at))
        days = np.where(_FIXED_TERM[product], _DAYS_HELD[product] * (1.0 + (drawn > 1.5)), _DAYS_HELD[product] * drawn)
        self._closes[customer, product] = at + np.maximum(days, SHORTEST_DAYS) * DAY
        self._log.append((customer, product, at, True))


def first_holdings(random: np.random.Generator, people: People, truth: Truth) -> Bool:
    """What customers hold when they become known: bool [N, P], at least one product each."""
    everyone = np.arange(len(people.known))
    nothing = np.zeros((len(everyone), len(PRODUCTS)), dtype=np.bool_)
    need = truth.full_need(everyone, people.known, nothing)
    logit = np.log(_FIRST / (1.0 - _FIRST)) + 0.8 * need - np.where(people.known > 0, 1.5, 0.0)[:, None]
    held = random.random(need.shape) < sigmoid(logit)
    held[:, 0] |= ~held.any(axis=1)
    return np.asarray(held)


def holdings_table(log: tuple[Ints, Ints, Float64, Bool], customer_ids: pa.Array) -> pa.Table:
    """The `holdings` table, sorted by time."""
    customer, product, at, opened = log
    return pa.table(
        {
            CUSTOMER_ID: texts(customer_ids, customer),
            EVENT_TIMESTAMP: timestamps(to_micros(at)),
            Holding.PRODUCT_ID: texts([item.id for item in PRODUCTS], product),
            Holding.ACTION: texts((Holding.OPENED, Holding.CLOSED), np.where(opened, 0, 1)),
        }
    )


def held_at_months(log: tuple[Ints, Ints, Float64, Bool], starts: Float64, customers: int) -> Bool:
    """What was held at the start of each month: bool [M, N, P]."""
    customer, product, at, opened = log
    state = np.zeros((customers, len(PRODUCTS)), dtype=np.bool_)
    months = np.empty((len(starts) - 1, *state.shape), dtype=np.bool_)
    done = 0
    for month, start in enumerate(starts[:-1]):
        upto = int(np.searchsorted(at, start, side="right"))
        # The last change of each holding wins: numpy keeps the last of repeated assignments.
        state[customer[done:upto], product[done:upto]] = opened[done:upto]
        months[month] = state
        done = upto
    return months
