"""The vocabulary between tables, Feast and models: attributes, feature views, states and model rows.

A *view* is a table of customer states, one row per change; Feast keeps it. A *state* is the newest row of a view
at some time. *Rows* are what a model sees: states brought to the moment of the question by one function,
`features.assemble.assemble`, for training and for serving alike.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Bool: TypeAlias = npt.NDArray[np.bool_]
Int64: TypeAlias = npt.NDArray[np.int64]
Texts: TypeAlias = npt.NDArray[np.object_]

AttributeKind = Literal["number", "flag", "date", "text"]
ColumnKind = Literal["number", "text"]
MARKET_KEY = "market_id"
MARKET_ID = "all"


@dataclass(frozen=True)
class Attribute:
    """A customer attribute that a bank brought: its column name and what it holds."""

    name: str
    kind: AttributeKind


@dataclass(frozen=True)
class Column:
    """A column of a feature view. Numbers are float64 (times: seconds since 1970 UTC), texts are strings."""

    name: str
    kind: ColumnKind = "number"


@dataclass(frozen=True)
class View:
    """A feature view: what it is keyed by, how long a state may be trusted, and its columns in order."""

    name: str
    entity: Literal["customer", "market"]
    ttl: timedelta
    columns: tuple[Column, ...]

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.kind == "number")

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.kind == "text")


@dataclass(frozen=True)
class State:
    """The newest state of one view for each of n entities.

    at: float64 [n], seconds since 1970 UTC of the event behind the state; NaN where nothing is known.
    numbers: float64 [n, len(view.numbers)], NaN = missing.
    texts: object [n, len(view.texts)], None = missing.
    """

    at: Float64
    numbers: Float64
    texts: Texts

    def part(self, rows: slice) -> State:
        """Some entities' states, which are not copied."""
        return State(self.at[rows], self.numbers[rows], self.texts[rows])

    def take(self, index: npt.NDArray[np.int64]) -> State:
        return State(self.at[index], self.numbers[index], self.texts[index])


States: TypeAlias = Mapping[str, State]
"""View name → states of the same n entities, in the same order."""


@dataclass(frozen=True)
class RowSchema:
    """Everything that fixes the meaning and order of a model row; stored with each model.

    `vocabularies` holds, per text attribute, the values that have a column of their own, most frequent first;
    any other value lights none of them.
    """

    products: tuple[str, ...]
    holdable: tuple[bool, ...]
    channels: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    vocabularies: tuple[tuple[str, tuple[str, ...]], ...]
    time_zone: str
    customer_names: tuple[str, ...]
    product_names: tuple[str, ...]
    channel_names: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON: two schemas agree exactly when their fingerprints do."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @cached_property
    def customer_places(self) -> Mapping[str, int]:
        """The columns of the customer block by their names; of equal names the first."""
        return {name: place for place, name in reversed(list(enumerate(self.customer_names)))}

    @cached_property
    def plain_kinds(self) -> tuple[AttributeKind, ...]:
        """What the attributes hold that are not texts, in their order."""
        return tuple(attribute.kind for attribute in self.attributes if attribute.kind != "text")

    @cached_property
    def word_places(self) -> tuple[Mapping[str, int], ...]:
        """Per text attribute, each word of its vocabulary with its place among the words of all of them."""
        places = itertools.count()
        return tuple({word: next(places) for word in words} for _, words in self.vocabularies)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> RowSchema:
        raw: dict[str, Any] = json.loads(text)
        return cls(
            products=tuple(raw["products"]),
            holdable=tuple(raw["holdable"]),
            channels=tuple(raw["channels"]),
            attributes=tuple(Attribute(**item) for item in raw["attributes"]),
            vocabularies=tuple((name, tuple(values)) for name, values in raw["vocabularies"]),
            time_zone=raw["time_zone"],
            customer_names=tuple(raw["customer_names"]),
            product_names=tuple(raw["product_names"]),
            channel_names=tuple(raw["channel_names"]),
        )


@dataclass(frozen=True)
class Rows:
    """Model rows of n (customer, time) pairs. Missing values are NaN.

    customer: float32 [n, C], what is known of the customer.
    product: float32 [n, P, K], what is known of the customer and each product of the catalogue.
    channel: float32 [n, H, L], what is known of the customer and each channel of the catalogue.
    held: bool [n, P], True where the customer holds the product.
    opted_out: bool [n, H], True where marketing on the channel is not consented to.
    """

    customer: Float32
    product: Float32
    channel: Float32
    held: Bool
    opted_out: Bool
    schema: RowSchema

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, index: Sequence[int] | npt.NDArray[np.int64] | Bool | slice) -> Rows:
        """The rows at `index`, in that order."""
        return Rows(
            self.customer[index],
            self.product[index],
            self.channel[index],
            self.held[index],
            self.opted_out[index],
            self.schema,
        )


def stacked(rows: Sequence[Rows]) -> Rows:
    """One row after the other, of one schema; at least one part."""
    if len(rows) == 1:
        return rows[0]
    return Rows(
        np.concatenate([part.customer for part in rows]),
        np.concatenate([part.product for part in rows]),
        np.concatenate([part.channel for part in rows]),
        np.concatenate([part.held for part in rows]),
        np.concatenate([part.opted_out for part in rows]),
        rows[0].schema,
    )
