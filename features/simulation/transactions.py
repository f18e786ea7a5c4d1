"""The `transactions` table: pay, spending by category, loan instalments, and the running balance.

Tastes show here: travellers travel, savers keep a balance, online buyers shop online, and those who like risk move
money into their investments.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Transaction
from features.schema import Bool, Float64
from features.simulation.calendar import DAY, Ints, to_micros
from features.simulation.catalog import PRODUCTS
from features.simulation.files import TableFile, texts, timestamps
from features.simulation.population import People

SPENDING = ("groceries", "dining", "online", "travel", "health", "education", "cash", "investment")
CATEGORIES = (*SPENDING, "salary", "pension", "housing", "loan_payment", "transfer_in")
SPENDINGS_A_MONTH = 8.0
_SHARE_BASE = np.array([1.1, 0.6, 0.4, -1.2, -0.5, -1.0, -0.4, -1.6])  # log odds of each kind of spending
_SIZE = np.array([0.6, 0.7, 1.0, 2.5, 1.0, 1.5, 1.2, 2.0])  # relative to the mean amount
_SIZE_SPREAD = 0.6
_INSTALMENT = np.array([{"personal_loan": 0.08, "car_loan": 0.1, "mortgage": 0.22}.get(p.id, 0.0) for p in PRODUCTS])


class Spending:
    """The monthly money of N customers; carries their balances from month to month."""

    def __init__(self, random: np.random.Generator, people: People, customer_ids: pa.Array) -> None:
        self._random = random
        self._people = people
        self._customer_ids = customer_ids
        taste, n = people.taste, len(people.known)
        log_share = np.tile(_SHARE_BASE, (n, 1))
        for name, category, slope in (
            ("online", "online", 0.7), ("travel", "travel", 0.9), ("risk", "investment", 0.8), ("online", "cash", -0.4),
        ):  # fmt: skip
            log_share[:, SPENDING.index(category)] += slope * taste[name]
        share = np.exp(log_share)
        self._distribution = np.cumsum(share / share.sum(axis=1, keepdims=True), axis=1)  # [N, spending]
        self._mean_size = (share / share.sum(axis=1, keepdims=True)) @ _SIZE
        self._pay_day = random.choice([5, 10, 15, 25], n)
        self._pace = np.exp(random.normal(0.0, 0.2, n))
        self._saved_share = np.clip(0.14 + 0.12 * taste["saver"], 0.02, 0.5)
        self.balance = np.round(people.income[0] * np.exp(0.6 + 0.7 * taste["saver"]), 2)

    def write_month(self, file: TableFile, month: int, start: float, finish: float, held: Bool) -> None:
        """Append one month, sorted by time. held: bool [N, P] at its start."""
        parts = [self._pay(month, start), self._duties(month, start, held), self._spend(month, start, finish)]
        customer, at, amount, category = (np.concatenate(column) for column in zip(*parts, strict=True))
        seen = (at < finish) & (at >= self._people.known[customer])
        customer, at, amount, category = customer[seen], at[seen], np.round(amount[seen], 2), category[seen]

        by_customer = np.lexsort((at, customer))
        customer, at, amount, category = (values[by_customer] for values in (customer, at, amount, category))
        running = np.cumsum(amount)
        first = np.searchsorted(customer, customer, side="left")
        balance = self.balance[customer] + running - running[first] + amount[first]
        np.add.at(self.balance, customer, amount)
        balance = np.round(balance, 2)
        order = np.argsort(at, kind="stable")
        file.write(
            pa.table(
                {
                    CUSTOMER_ID: texts(self._customer_ids, customer[order]),
                    EVENT_TIMESTAMP: timestamps(to_micros(at[order])),
                    Transaction.AMOUNT: pa.array(amount[order]),
                    Transaction.CATEGORY: texts(CATEGORIES, category[order]),
                    Transaction.BALANCE: pa.array(balance[order]),
                }
            )
        )

    def _pay(self, month: int, start: float) -> tuple[Ints, Float64, Float64, Ints]:
        n = len(self._pay_day)
        at = start + (self._pay_day - 1) * DAY + 3600.0 * (1.0 + self._random.random(n))
        amount = self._people.income[month] * np.exp(self._random.normal(0.0, 0.02, n))
        category = np.where(self._people.retired[month], CATEGORIES.index("pension"), CATEGORIES.index("salary"))
        return np.arange(n), at, amount, category

    def _duties(self, month: int, start: float, held: Bool) -> tuple[Ints, Float64, Float64, Ints]:
        income = self._people.income[month]
        instalment = held @ _INSTALMENT
        payer = np.flatnonzero(instalment > 0)
        renter = np.flatnonzero(~held[:, [p.id for p in PRODUCTS].index("mortgage")])
        friend = np.flatnonzero(self._random.random(len(income)) < 0.3)
        customer = np.concatenate([payer, renter, friend])
        amount = np.concatenate(
            [
                -instalment[payer] * income[payer],
                -0.18 * income[renter],
                0.05 * income[friend] * self._random.exponential(size=len(friend)),
            ]
        )
        names = ("loan_payment", "housing", "transfer_in")
        category = np.repeat([CATEGORIES.index(name) for name in names], [len(payer), len(renter), len(friend)])
        day = np.concatenate(
            [np.full(len(payer), 20.0), np.full(len(renter), 2.0), 27 * self._random.random(len(friend))]
        )
        at = start + day * DAY + 3600.0 * (2.0 + 8.0 * self._random.random(len(day)))
        return customer, at, amount, category

    def _spend(self, month: int, start: float, finish: float) -> tuple[Ints, Float64, Float64, Ints]:
        n = len(self._pace)
        customer = np.repeat(np.arange(n), self._random.poisson(SPENDINGS_A_MONTH * self._pace))
        draw = self._random.random(len(customer))
        category = (self._distribution[customer] < draw[:, None]).sum(axis=1)
        category = np.minimum(category, len(SPENDING) - 1)
        # Waking hours of the bank's zone: 8 to 23 local is 0 to 15 UTC.
        day = np.floor(self._random.random(len(customer)) * (finish - start) / DAY)
        at = start + day * DAY + 3600.0 * 15.0 * self._random.random(len(customer))
        budget = self._people.income[month] * (0.72 - self._saved_share)
        mean = budget / (SPENDINGS_A_MONTH * self._pace * self._mean_size)
        spread = np.exp(self._random.normal(-(_SIZE_SPREAD**2) / 2, _SIZE_SPREAD, len(customer)))
        return customer, at, -mean[customer] * _SIZE[category] * spread, category
