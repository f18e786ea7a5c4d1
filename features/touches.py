"""What one event of the timeline adds to a view: said once, by the view, for history and for live updates.

A view whose state is a fold over the timeline names its layout and, per *occurrence*, its *touch*. An occurrence is
all of an event that such a view may look at, besides its time: few distinct ones make up a long timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.catalog import Catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Table
from features.folds import encode, seconds, state_table
from features.importing import Bank
from features.joins import Layout, history
from features.schema import Float64, Int64, View
from features.times import HOURS_PER_PART, PARTS, part_of_day

UNKNOWN = -1
"""Position of a channel or product that the catalogue does not have: it is none, and it is not all."""


class Occurrence(NamedTuple):
    """What happened. channel, product: positions in the catalogue; None: the event names none. part: of the day."""

    kind: str
    channel: int | None
    product: int | None
    purpose: str | None
    part: int


@dataclass(frozen=True)
class Touch:
    """Positions in the numbers of a view's layout: sums that grow by one, times that become the event's, and kept
    pairs (position of the time, code)."""

    sums: tuple[int, ...] = ()
    times: tuple[int, ...] = ()
    pairs: tuple[tuple[int, float], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sums or self.times or self.pairs)

    def at(self, places: Int64) -> Touch:
        """The same where the layout's numbers stand at these places; a pair's two numbers stand side by side."""
        return Touch(
            tuple(int(places[position]) for position in self.sums),
            tuple(int(places[position]) for position in self.times),
            tuple((int(places[position]), code) for position, code in self.pairs),
        )

    def write(self, numbers: Float64, at: float) -> None:
        """Make `numbers` [width] of a history without events the state of this one event, at seconds since 1970."""
        for position in self.sums:
            numbers[position] = 1.0
        for position in self.times:
            numbers[position] = at
        for position, code in self.pairs:
            numbers[position], numbers[position + 1] = at, code


@dataclass(frozen=True)
class Folding:
    """How a view is folded from the timeline. touch: false where an occurrence changes nothing of the view."""

    layout: Layout
    touch: Callable[[Occurrence], Touch]


class Occurrences:
    """Names as positions, and times as parts of the day, for one catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self._channels = {name: position for position, name in enumerate(catalog.channel_ids)}
        self._products = {name: position for position, name in enumerate(catalog.product_ids)}
        self._zone = ZoneInfo(catalog.time_zone)

    def one(self, kind: str, channel: str | None, product: str | None, purpose: str | None, at_us: int) -> Occurrence:
        """An event's occurrence; at_us: microseconds since 1970 UTC."""
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
        return self._of(kind, channel, product, purpose, part_of_day(moment, self._zone))

    def of_table(self, table: pa.Table) -> tuple[list[Occurrence], Int64]:
        """The distinct occurrences of a timeline and, per event [n], which one it is."""
        which = np.zeros(table.num_rows, dtype=np.int64)
        names: list[list[str | None]] = []
        for column in (Event.KIND, Event.CHANNEL, Event.PRODUCT_ID, Event.PURPOSE):
            codes, known = encode(table[column].fill_null(""))
            names.append([name or None for name in known.to_pylist()])
            which = which * max(len(known), 1) + codes
        local = table[EVENT_TIMESTAMP].cast(pa.timestamp("us", tz=self._zone.key))
        which = which * PARTS + np.asarray(pc.hour(local).to_numpy(), dtype=np.int64) // HOURS_PER_PART
        distinct, index = np.unique(which, return_inverse=True)
        found = []
        for code in distinct.tolist():
            code, part = divmod(code, PARTS)
            parts = []
            for known_names in reversed(names):
                code, position = divmod(code, len(known_names))
                parts.append(known_names[position])
            purpose, product, channel, kind = parts
            found.append(self._of(str(kind), channel, product, purpose, part))
        return found, index.reshape(-1)

    def _of(self, kind: str, channel: str | None, product: str | None, purpose: str | None, part: int) -> Occurrence:
        return Occurrence(kind, _position(channel, self._channels), _position(product, self._products), purpose, part)


def _position(name: str | None, positions: Mapping[str, int]) -> int | None:
    return None if name is None else positions.get(name, UNKNOWN)


def fold_timeline(bank: Bank, view: View, folding: Folding) -> pa.Table:
    """The states of a view: one row per customer and time of an event that touches it."""
    table = bank.tables[Table.TIMELINE]
    occurrences, which = Occurrences(bank.catalog).of_table(table)
    touches = [folding.touch(occurrence) for occurrence in occurrences]
    touching = np.array([bool(touch) for touch in touches], dtype=bool)[which]
    table, which = table.filter(pa.array(touching)), which[touching]
    # An event of each kind, at a time that none has: where it stands, the events' own times go.
    patterns = folding.layout.nothing(len(touches))
    for pattern, touch in zip(patterns, touches, strict=True):
        touch.write(pattern, np.inf)
    at, numbers = seconds(table[EVENT_TIMESTAMP]), patterns[which]
    np.copyto(numbers, at[:, None], where=np.isinf(numbers))
    customers, ids = encode(table[CUSTOMER_ID])
    entity, moments, states = history(folding.layout, customers, at, numbers)
    return state_table(view, ids.take(pa.array(entity)), moments, states)
