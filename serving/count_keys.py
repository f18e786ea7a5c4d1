"""Keys of back-off counts: what in a row says which counts it belongs to, as small integers.

A fact codes one thing of a customer (which quarter of the ages, the word of a segment, which product was bought last,
what is held) or of a customer and a candidate (days since this one, its share of all visits). A key is one fact or two
together, and says whether each candidate is counted by itself. Facts look at nothing but the row, so a key means the
same while counting and while scoring.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from features.schema import Float32, Float64, Rows
from serving.question import Block
from serving.scorers import Layout

Codes = npt.NDArray[np.int64]
Kind = Literal["bins", "word", "most", "least", "pattern", "own", "share", "place"]
OF_CUSTOMER = ("bins", "word", "most", "least", "pattern")
MOST_MEMBERS = 62
"""Columns of which a pattern can be: as many bits has a number."""
LAST_PLACE = 6
"""Places in an order beyond this one count as this one."""


@dataclass(frozen=True)
class Fact:
    """One thing that a row says, coded as 0 .. size - 1.

    Of the customer, from the customer block's `columns` (one code per row):
    bins      in which of the bins (up to and including each of `edges`) the column lies; the last code: missing.
    word      which of the columns is 1 (an attribute's vocabulary), + 1; 0: none.
    most      which of the columns, one per product or channel, is greatest, + 1; 0: none is above 0.
    least     which of them is least (the last one bought, where they are days since), + 1; 0: none is known.
    pattern   which of `patterns` is the set of columns above 0, + 1; 0: another one.
    Of the customer and a candidate (one code per pair):
    own       the candidate block's column, in bins.
    share     the candidate's column as a share of the sum of all columns, one per candidate, in bins.
    place     its place in their order, least first.
    """

    kind: Kind
    columns: tuple[int, ...]
    edges: tuple[float, ...] = ()
    patterns: tuple[tuple[int, ...], ...] = ()

    @property
    def of_customer(self) -> bool:
        return self.kind in OF_CUSTOMER

    @property
    def size(self) -> int:
        if self.kind in ("bins", "own", "share"):
            return len(self.edges) + 2
        if self.kind == "place":
            return LAST_PLACE + 1
        return 1 + (len(self.patterns) if self.kind == "pattern" else len(self.columns))

    def codes(self, customer: Float32, candidates: Float32) -> Codes:
        """Int64 [n], or [n, m] where the fact is of a candidate too. customer: [n, C]; candidates: [n, m, K]."""
        if self.kind == "own":
            return binned(candidates[:, :, self.columns[0]], self.edges)
        if self.kind == "bins":
            return binned(customer[:, self.columns[0]], self.edges)
        values = customer[:, list(self.columns)]  # [n, one per candidate, product, channel or word]
        if self.kind == "share":
            return binned(shares(values), self.edges)
        if self.kind == "place":
            return places(values)
        if self.kind == "pattern":
            return self._patterns(values > 0)
        if self.kind == "least":
            known = np.where(np.isnan(values), np.inf, values)
            return np.where(np.isfinite(known).any(axis=1), known.argmin(axis=1) + 1, 0)
        known = np.where(values > 0, values, 0)  # a NaN is not above 0
        return np.where(known.any(axis=1), known.argmax(axis=1) + 1, 0)

    def _patterns(self, held: npt.NDArray[np.bool_]) -> Codes:
        known, number = self._known
        sets = as_number(held)
        place = np.minimum(np.searchsorted(known, sets), len(known) - 1)
        return np.where(known[place] == sets, number[place], 0)

    @cached_property
    def _known(self) -> tuple[Codes, Codes]:
        """The patterns as numbers, ascending, and the code of each."""
        sets = np.zeros((len(self.patterns), len(self.columns)), dtype=np.bool_)
        for number, pattern in enumerate(self.patterns):
            sets[number, list(pattern)] = True
        order = np.argsort(as_number(sets))
        return as_number(sets)[order], order + 1

    def told(self, layout: Layout) -> str:
        """In words, for the run's record: "last of 16: days since bought"."""
        if self.kind == "own":
            return f"own {layout.candidate_names[self.columns[0]]}"
        names = [layout.customer_names[column] for column in self.columns]
        if self.kind == "bins":
            return names[0]
        shared = names[0].split(" = ")[0] if self.kind == "word" else names[0].split(": ")[-1]
        return f"{self.kind} of {len(names)}: {shared}"


@dataclass(frozen=True)
class Key:
    """One fact, or two; a cell of the key is what is counted together.

    by_candidate: each candidate is counted by itself. Always so where all facts are of the customer: what is as true
    of every candidate cannot tell them apart. Such a key counts the outside option, too.
    strength: choices, as expected so far, that a cell must tell of to be believed half.
    """

    facts: tuple[Fact, ...]
    by_candidate: bool
    strength: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.facts) <= 2:
            raise ValueError(f"a key has one fact or two, however it has {len(self.facts)}")
        if self.of_customer and not self.by_candidate:
            raise ValueError("a key of the customer alone counts each candidate by itself, however by_candidate is off")
        if not self.strength > 0:
            raise ValueError(f"strength lies above 0, however it is {self.strength}")

    @property
    def of_customer(self) -> bool:
        return all(fact.of_customer for fact in self.facts)

    @property
    def groups(self) -> int:
        """How many codes the facts have together."""
        return int(np.prod([fact.size for fact in self.facts]))

    def shape(self, candidates: int) -> tuple[int, int]:
        """Of the table: groups by options (m + 1, or m where the outside option is not counted, or 1)."""
        return self.groups, (candidates + self.of_customer) if self.by_candidate else 1

    def codes(self, customer: Float32, candidates: Float32) -> Codes:
        """Which group: int64 [n] for a key of the customer, [n, m] else."""
        return combined([(fact, fact.codes(customer, candidates)) for fact in self.facts])

    def looked_up(self, table: Float32 | Float64, codes: Codes) -> Float32:
        """What the table says of each option, float32 [n, m + 1]; 0 for an option that it does not count."""
        if self.of_customer:
            return np.asarray(table[codes], dtype=np.float32)
        column = np.arange(codes.shape[1]) if self.by_candidate else 0
        found = np.zeros((codes.shape[0], codes.shape[1] + 1), dtype=np.float32)
        found[:, :-1] = table[codes, column]
        return found

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Key:
        facts = tuple(
            Fact(
                one["kind"],
                tuple(one["columns"]),
                tuple(one["edges"]),
                tuple(tuple(pattern) for pattern in one["patterns"]),
            )
            for one in raw["facts"]
        )
        return cls(facts, raw["by_candidate"], raw["strength"])


def combined(coded: list[tuple[Fact, Codes]]) -> Codes:
    """One code of several facts' codes, in mixed radix; [n] where all are of the customer, else [n, m]."""
    deep = any(not fact.of_customer for fact, _ in coded)
    total: Codes = np.zeros(1, dtype=np.int64)
    for fact, codes in coded:
        total = total * fact.size + (codes[:, None] if deep and fact.of_customer else codes)
    return total


def as_number(held: npt.NDArray[np.bool_]) -> Codes:
    """Each row's set of columns as a number, int64 [n]; at most MOST_MEMBERS columns."""
    return np.asarray(held @ (np.int64(1) << np.arange(held.shape[1], dtype=np.int64)), dtype=np.int64)


def binned(values: Float32, edges: tuple[float, ...]) -> Codes:
    """How many edges lie below each value; len(edges) + 1 where it is missing. Same shape as values."""
    codes = np.searchsorted(np.asarray(edges, dtype=np.float64), values.astype(np.float64), side="left")
    return np.where(np.isnan(values), len(edges) + 1, codes)


def shares(values: Float32) -> Float32:
    """Each column's share of the row's sum, [n, m]; NaN where the sum is 0. What is below 0 or missing counts 0."""
    counted = np.clip(np.nan_to_num(values.astype(np.float64)), 0.0, None)
    total = counted.sum(axis=1, keepdims=True)
    part: Float32 = np.divide(counted, total, out=np.full(counted.shape, np.nan), where=total > 0).astype(np.float32)
    return part


def places(values: Float32) -> Codes:
    """Place of each column in the row's order, least first, ties sharing the first; LAST_PLACE where missing."""
    known = np.where(np.isnan(values), np.inf, values)
    below = rankdata(known, method="min", axis=1).astype(np.int64) - 1  # [n, m]
    return np.where(np.isinf(known), LAST_PLACE, np.minimum(below, LAST_PLACE - 1))


def blocks_of(layout: Layout, rows: Rows) -> tuple[Float32, Float32]:
    """Customer block [n, C] and the candidates' block [n, m, K] of rows in this layout."""
    return layout.customer(rows), layout.candidates(rows)


def per_member(names: tuple[str, ...], members: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """What the customer block tells of every member (product or channel): name → its columns, in members' order."""
    place = {name: position for position, name in enumerate(names)}
    suffixes = [name.removeprefix(f"{members[0]}: ") for name in names if name.startswith(f"{members[0]}: ")]
    found = {}
    for suffix in dict.fromkeys(suffixes):
        columns = [place.get(f"{member}: {suffix}", -1) for member in members]
        if min(columns) >= 0:
            found[suffix] = tuple(columns)
    return found


def aligned(columns: tuple[int, ...], block: Block, layout: Layout) -> tuple[int, ...]:
    """The columns of a block's members in the order of the layout's candidates; none where they are of the other."""
    return tuple(columns[position] for position in layout.positions) if block == layout.block else ()
