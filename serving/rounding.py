"""From shares to a plan: whole contacts on days, no sum above what it may be.

An LP vertex has no more broken customers than scarce resources, so little is lost: broken ones are rounded down, and
what is left over goes to the best contacts that still fit. Days come last and cost nothing: all days are alike, and a
customer-channel graph without more than D contacts per customer and D × capacity per channel splits into D days
(Kőnig 1916: a bipartite graph can be edge-coloured with as many colours as its greatest degree).
"""

from __future__ import annotations

import numpy as np

from features.schema import Bool, Float64
from serving.allocation import Duals, Int64, Problem

WHOLE = 1 - 1e-6
"""A share from which on a contact counts as chosen."""


def rounded(problem: Problem, x: Float64, duals: Duals) -> Bool:
    """bool [c]: a plan that keeps every constraint, from an LP solution that does up to the solver's tolerance."""
    order = np.lexsort((-duals.reduced(problem), -np.where(x >= WHOLE, 1.0, x)))
    order = order[(x[order] > 1e-9) | (problem.value[order] > 0)]
    room = _Room(problem)
    for column in order.tolist():
        if room.full:
            break
        room.take(column)
    return room.chosen


class _Room:
    """What is left of everything scarce while a plan is filled."""

    def __init__(self, problem: Problem) -> None:
        self.chosen: Bool = np.zeros(len(problem), dtype=np.bool_)
        self._customer, self._channel = problem.customer.tolist(), problem.channel.tolist()
        self._offer = problem.offer.tolist()
        self._contacts = problem.contacts.tolist()
        self._capacity, self._cost, self._budget = problem.capacity.tolist(), problem.cost, problem.budget
        self._messages = np.zeros(len(problem.cost))
        self._limits = [(limit.key.tolist(), limit.most.tolist()) for limit in problem.limits]
        self._offered: set[int] = set()
        self._open = {channel for channel in set(self._channel) if self._capacity[channel] >= 1}

    @property
    def full(self) -> bool:
        """Whether no channel can take another message."""
        return not self._open

    def take(self, column: int) -> None:
        """Choose the column if it fits."""
        customer, channel = self._customer[column], self._channel[column]
        if channel not in self._open or self._contacts[customer] < 1 or self._offer[column] in self._offered:
            return
        limits = [(most, keys[column]) for keys, most in self._limits if keys[column] >= 0]
        if any(most[key] < 1 for most, key in limits):
            return
        self._messages[channel] += 1
        if float(self._messages @ self._cost) > self._budget:
            self._messages[channel] -= 1
            return
        self.chosen[column] = True
        self._offered.add(self._offer[column])
        self._contacts[customer] -= 1
        for most, key in limits:
            most[key] -= 1
        if self._messages[channel] + 1 > self._capacity[channel]:
            self._open.discard(channel)


def on_days(customer: Int64, channel: Int64, days: int) -> Int64:
    """int64 [contacts]: a day, 1 … days, for each; never two of a customer on one, and each channel's spread evenly.

    No customer may have more contacts than there are days. Each channel is split into nodes of at most `days` contacts;
    then every node has at most one contact a day, so that a channel has at most ⌈contacts / days⌉.
    """
    if len(customer) and np.bincount(customer).max() > days:
        raise ValueError(f"a customer has at most one contact on each of {days} days, however one has more contacts")
    seats = _seats(channel, days)
    at_customer: dict[tuple[int, int], int] = {}  # (node, day) → contact
    at_seat: dict[tuple[int, int], int] = {}
    day = np.zeros(len(customer), dtype=np.int64)
    for contact, (here, there) in enumerate(zip(customer.tolist(), seats.tolist(), strict=True)):
        mine = _first_free(at_customer, here, days)
        if (there, mine) in at_seat:
            _swap(at_customer, at_seat, customer, seats, day, there, mine, _first_free(at_seat, there, days))
        at_customer[here, mine] = at_seat[there, mine] = contact
        day[contact] = mine
    return day


def _seats(channel: Int64, days: int) -> Int64:
    """int64 [contacts]: nodes of one channel each, with at most `days` contacts."""
    place = np.zeros(len(channel), dtype=np.int64)
    seats = np.zeros(len(channel), dtype=np.int64)
    taken = 0
    for one in np.unique(channel):
        mine = np.flatnonzero(channel == one)
        place[mine] = np.arange(len(mine)) // days
        seats[mine] = taken + place[mine]
        taken += int(place[mine].max()) + 1
    return seats


def _first_free(taken: dict[tuple[int, int], int], node: int, days: int) -> int:
    return next(day for day in range(1, days + 1) if (node, day) not in taken)


def _swap(
    at_customer: dict[tuple[int, int], int],
    at_seat: dict[tuple[int, int], int],
    customer: Int64,
    seats: Int64,
    day: Int64,
    there: int,
    wanted: int,
    other: int,
) -> None:
    """Free the day `wanted` at a seat: along the path that alternates between the two days they change places.

    The path leaves seats on `wanted` and customers on `other`; the new contact's customer is free on `wanted`, so the
    path, entering customers on `wanted`, never comes to it.
    """
    path: list[int] = []
    side, node, leaving = at_seat, there, wanted
    while (contact := side.get((node, leaving))) is not None:
        path.append(contact)
        side, node = (at_customer, int(customer[contact])) if side is at_seat else (at_seat, int(seats[contact]))
        leaving = other if leaving == wanted else wanted
    for contact in path:
        del at_customer[int(customer[contact]), int(day[contact])], at_seat[int(seats[contact]), int(day[contact])]
    for contact in path:
        day[contact] = other if day[contact] == wanted else wanted
        at_customer[int(customer[contact]), int(day[contact])] = contact
        at_seat[int(seats[contact]), int(day[contact])] = contact
