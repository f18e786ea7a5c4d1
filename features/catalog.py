"""The bank's catalogue: products, channels, contents and policies of `catalog.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.errors import BankDataError

Direction = Literal["inbound", "outbound", "both"]
Format = Literal["text", "html", "sms"]


@dataclass(frozen=True)
class Product:
    id: str
    name: str
    holdable: bool = False
    """True when a holder is not offered it again."""
    group: str | None = None
    margin: float | None = None
    """Catalogue currency per take-up; None: not declared, every take-up then counts 1."""
    response_days: float | None = None
    """How long an offer of it may be answered: then a decision is a row to learn from. None: the training's horizon."""


@dataclass(frozen=True)
class Channel:
    id: str
    name: str
    direction: Direction = "outbound"
    cost: float = 0.0
    """Catalogue currency per message."""
    capacity: int | None = None
    quiet_hours: tuple[str, str] | None = None
    """("21:00", "08:00"): no messages from the first to before the second, in the customer's zone. In the file a
    list of the two, or "21:00-08:00"."""
    max_length: int | None = None
    """Characters of a text; on an SMS channel, of a text in the GSM alphabet: see `format`."""
    format: Format = "text"
    """html: what templates print is escaped. sms: a text may fill as many segments as `max_length` GSM characters do,
    so a text outside that alphabet has room for fewer."""
    statuses: Mapping[str, str] | None = field(default=None, hash=False)
    """Kinds of events by the words that this channel's provider has for them, beside those that every provider has:
    {"DELIVRD" = "delivered"}. Upper and lower case are alike."""

    @property
    def outbound(self) -> bool:
        return self.direction in ("outbound", "both")


@dataclass(frozen=True)
class Content:
    id: str
    language: str
    template: str
    product_id: str | None = None
    channel: str | None = None
    plain: str | None = None
    """A template without a word about the customer, used where a variable of `template` is missing."""


@dataclass(frozen=True)
class Catalog:
    currency: str
    time_zone: str
    products: tuple[Product, ...] = ()
    channels: tuple[Channel, ...] = ()
    contents: tuple[Content, ...] = ()
    policies: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def product_ids(self) -> tuple[str, ...]:
        return tuple(product.id for product in self.products)

    @cached_property
    def product_groups(self) -> tuple[int, ...]:
        """The group of each product, numbered by first appearance; those without one are a group together."""
        names = [product.group for product in self.products]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return tuple(numbers[name] for name in names)

    @cached_property
    def channel_ids(self) -> tuple[str, ...]:
        return tuple(channel.id for channel in self.channels)

    @cached_property
    def holdable(self) -> npt.NDArray[np.bool_]:
        """bool [P]: products that a holder is not offered again; nobody may change it."""
        return _fixed([product.holdable for product in self.products])

    @cached_property
    def outbound(self) -> npt.NDArray[np.bool_]:
        """bool [H]: channels that can be sent on; nobody may change it."""
        return _fixed([channel.outbound for channel in self.channels])

    @cached_property
    def quiet_hours(self) -> Mapping[str, tuple[str, str] | None]:
        """Channel → its quiet hours, None without."""
        return {channel.id: channel.quiet_hours for channel in self.channels}

    @cached_property
    def inbound(self) -> frozenset[str]:
        """Channels that customers come by and nothing is sent on."""
        return frozenset(channel.id for channel in self.channels if channel.direction == "inbound")


def _fixed(flags: list[bool]) -> npt.NDArray[np.bool_]:
    made = np.array(flags, dtype=np.bool_)
    made.setflags(write=False)
    return made


def load_catalog(path: Path) -> Catalog:
    """Read a `catalog.toml`. Raises BankDataError with every problem, notes left out, when one is an error."""
    # Here, because the reader builds the classes above.
    from features.catalog_file import read_catalog
    from features.problems import format_problems

    reading = read_catalog(path)
    if reading.catalog is None:
        errors = [problem for problem in reading.problems if problem.severity == "error"]
        raise BankDataError(f"{path} is not a catalogue:\n{format_problems(errors)}", errors)
    return reading.catalog
