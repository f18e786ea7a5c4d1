"""What a campaign keeps of each block of its customers: the contacts that a best plan could make, compact.

    worths of a block ─► pruned ─► Part (about 15 bytes per contact), in a file of its own ─► all parts: one problem

A block is pruned by itself, which is right because every rule of `prune` looks at one customer. So a campaign never
holds more than a few blocks in full, and what is left of them is the same however many processes made it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from features.catalog import Catalog
from features.errors import InputError
from features.schema import Bool, Float64
from serving.allocation import Int64, Limit, Problem, prune
from serving.kept_parts import load_part, save_part

Int32 = npt.NDArray[np.int32]
Int16 = npt.NDArray[np.int16]


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

    @property
    def each(self) -> int:
        """Contacts that a customer may have: no more than there are days."""
        return min(self.contacts, self.days)

    def capacity(self, catalog: Catalog) -> Float64:
        """Float64 [H]: messages of each channel in the whole campaign, inf = unlimited."""
        return np.array([np.inf if one.capacity is None else one.capacity * self.days for one in catalog.channels])


@dataclass(frozen=True)
class Worths:
    """Allowed contacts of consecutive customers. value: float64 [b, P, H], NaN = not allowed."""

    value: Float64
    limits: tuple[tuple[str, Bool, Int64], ...] = ()
    """Caps: rule, bool [P, H] = the contacts it counts, int64 [b] = how many of them are left to each customer."""


@dataclass(frozen=True)
class Part:
    """A block of b customers. customer: int32 [c], counted from the block's first; product, channel: int16 [c].

    value: float64 [c]. possible: contacts before pruning. Of L caps rules: text [L], counts: bool [L, P, H], the
    contacts that each counts, left: int32 [L, b], how many of them are left to each customer.
    """

    possible: int
    customers: int
    customer: Int32
    product: Int16
    channel: Int16
    value: Float64
    rules: npt.NDArray[np.str_]
    counts: Bool
    left: Int32

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        save_part(path, {name: np.asarray(column) for name, column in vars(self).items()})

    @classmethod
    def load(cls, path: Path) -> Part | None:
        """The part in a file; None where there is none, or a damaged one."""
        found = load_part(path)
        if found is None:
            return None
        return cls(int(found.pop("possible")), int(found.pop("customers")), **found)


def part_of(catalog: Catalog, customers: int, block: Worths, terms: Terms) -> Part:
    """The contacts of a block that a plan for so many customers in all could need."""
    open_, caps = np.isfinite(block.value), block.limits
    if terms.each <= 1:  # then a cap is used up already, or cannot be
        for _, counts, most in caps:
            open_ &= (most > 0)[:, None, None] | ~counts
        caps = ()
    customer, product, channel = np.nonzero(open_)
    limits = tuple(Limit(rule, np.where(counts[product, channel], customer, -1), most) for rule, counts, most in caps)
    capacity = terms.capacity(catalog)
    columns = Problem(
        customer,
        product,
        channel,
        block.value[customer, product, channel],
        np.full(len(block.value), terms.each, dtype=np.int64),
        np.where(capacity >= customers, np.inf, 0.0),  # what cannot fill up in the campaign cannot in a block
        np.array([one.cost for one in catalog.channels]),
        limits=limits,
    )
    kept = prune(columns)
    pairs = block.value.shape[1:]
    return Part(
        possible=len(columns),
        customers=len(block.value),
        customer=kept.customer.astype(np.int32),
        product=kept.product.astype(np.int16),
        channel=kept.channel.astype(np.int16),
        value=kept.value,
        rules=np.array([rule for rule, _, _ in caps], dtype=np.str_),
        counts=np.array([counts for _, counts, _ in caps], dtype=np.bool_).reshape(-1, *pairs),
        left=np.array([most for _, _, most in caps], dtype=np.int32).reshape(-1, len(block.value)),
    )


def joined(catalog: Catalog, order: Int64, parts: Iterable[Part], terms: Terms) -> tuple[Problem, int]:
    """One problem of all parts, and how many contacts were possible.

    order: int64 [n], the place among the customers of each whom the parts are about, in turn. The problem is the same
    in whatever order they come.
    """
    found, customers = list(parts), len(order)
    first = np.concatenate([[0], np.cumsum([part.customers for part in found], dtype=np.int64)]).astype(np.int64)
    if first[-1] != customers:
        raise ValueError(f"the parts are of all {customers} customers, however they are of {first[-1]}")

    def column(name: str) -> Int64:
        return np.concatenate([np.empty(0, np.int64), *(getattr(part, name) for part in found)]).astype(np.int64)

    customer = order[np.repeat(first[:-1], [len(part.value) for part in found]) + column("customer")]
    by_customer = np.argsort(customer, kind="stable")
    customer = customer[by_customer]
    product, channel = column("product")[by_customer], column("channel")[by_customer]
    limits = []
    for place, rule in enumerate(found[0].rules if found else ()):
        left = np.empty(customers, dtype=np.int64)
        left[order] = np.concatenate([part.left[place] for part in found])
        limits.append(Limit(str(rule), np.where(found[0].counts[place][product, channel], customer, -1), left))
    problem = Problem(
        customer,
        product,
        channel,
        np.concatenate([np.empty(0), *(part.value for part in found)])[by_customer],
        np.full(customers, terms.each, dtype=np.int64),
        terms.capacity(catalog),
        np.array([one.cost for one in catalog.channels]),
        np.inf if terms.budget is None else terms.budget,
        tuple(limits),
    )
    return problem, sum(part.possible for part in found)
