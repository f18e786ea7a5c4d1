"""Live features: what the events since the last import add to a customer's states, merged in at every read.

The *live state* of a customer is the fold of the ledger's events from nothing, over all views that are folds over the
timeline. It is kept as one blob, written with the event. States as imported, joined with it (`features.joins`), are the
states of the whole history: the next decision knows of an event as soon as it is stored, however it came.

A blob holds the numbers that differ from those of a history without events; it is read only with the layout that it
was written with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from features import consent, engagement, hours, purchases
from features.catalog import Catalog
from features.errors import ArtefactError
from features.home import FEATURES_VERSION
from features.joins import Fold, join, joined, together
from features.schema import Int64, State, States
from features.touches import Occurrence, Occurrences, Touch

MODULES = (engagement, purchases, consent, hours)
"""The views with a live part, in the order of their clocks."""
_STAMP = 8
_FLOAT64, _UINT32 = np.dtype("<f8"), np.dtype("<u4")
_OCCURRENCES = 4_096


@dataclass(frozen=True)
class LiveEvent:
    """An event of one customer's timeline, named by event_id; at_us: microseconds since 1970 UTC."""

    event_id: str
    at_us: int
    kind: str
    channel: str | None
    purpose: str | None
    product_id: str | None


class Live:
    """Live states of one catalogue's customers. Holds nothing but the catalogue's layout; safe in many threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._foldings = [module.folding(catalog) for module in MODULES]
        self._occurrences = Occurrences(catalog)
        self._layout, self._places = together([folding.layout for folding in self._foldings])
        self._nothing = self._layout.nothing(1)[0]
        self._touches = lru_cache(_OCCURRENCES)(self._touched)
        written = [
            [[column.name for column in module.view(catalog).columns], folding.layout.taus, folding.layout.kept]
            for module, folding in zip(MODULES, self._foldings, strict=True)
        ]
        named = [FEATURES_VERSION, written, catalog.channel_ids, catalog.product_ids, catalog.time_zone]
        self.fingerprint = hashlib.sha256(json.dumps(named).encode()).hexdigest()
        """Of all that gives a blob its meaning; another one means: make the blobs again from the events."""
        self._stamp = bytes.fromhex(self.fingerprint)[:_STAMP]

    def add(self, blob: bytes | None, events: Sequence[LiveEvent]) -> bytes:
        """The live state with more events of the same customer, in any order; each event is added once, ever.

        blob: the live state so far, None: there were no events. Raises ArtefactError where it is of another layout.
        """
        clocks = np.full((len(events), len(self._foldings)), np.nan)
        numbers = np.tile(self._nothing, (len(events), 1))
        for event, moved, row in zip(events, clocks, numbers, strict=True):
            at_us, product = event.at_us, event.product_id
            touched = self._touches(self._occurrences.one(event.kind, event.channel, product, event.purpose, at_us))
            at = at_us / 1e6
            for clock, touch in touched:
                moved[clock] = at
                touch.write(row, at)
        before = self._read([blob])
        fold = Fold(np.concatenate([before.at, clocks]), np.concatenate([before.numbers, numbers]))
        return self._packed(joined(self._layout, fold))

    def merged(self, base: States, blobs: Sequence[bytes | None]) -> States:
        """The states of n customers with what is live of each, in the order of `base`; None changes nothing.

        Views without a live part pass through. Raises ArtefactError where a blob is of another layout.
        """
        rows = np.array([row for row, blob in enumerate(blobs) if blob is not None], dtype=np.int64)
        if not len(rows):
            return base
        live = self._read([blob for blob in blobs if blob is not None])
        whole = join(self._layout, self._of_states(base, rows), live)
        unknown = np.isnan(whole.at)
        states = dict(base)
        for clock, (module, places) in enumerate(zip(MODULES, self._places, strict=True)):
            before = base[module.NAME]
            at, numbers = before.at.copy(), before.numbers.copy()
            at[rows] = whole.at[:, clock]
            numbers[rows] = np.where(unknown[:, clock, None], np.nan, whole.numbers[:, places])
            states[module.NAME] = State(at, numbers, before.texts)
        return states

    def _touched(self, event: Occurrence) -> tuple[tuple[int, Touch], ...]:
        """The clocks that an occurrence moves, and its touch of each one's view at the positions of the whole."""
        touches = [folding.touch(event) for folding in self._foldings]
        return tuple((clock, touch.at(self._places[clock])) for clock, touch in enumerate(touches) if touch)

    def _of_states(self, base: States, rows: Int64) -> Fold:
        """The states of the live views of these customers as one fold [k, ...]."""
        at = np.empty((len(rows), len(MODULES)))
        numbers = np.empty((len(rows), self._layout.width))
        for clock, (module, places) in enumerate(zip(MODULES, self._places, strict=True)):
            at[:, clock] = base[module.NAME].at[rows]
            numbers[:, places] = base[module.NAME].numbers[rows]
        sums = numbers[:, : self._layout.sums]
        sums[np.isnan(sums)] = 0.0  # of an unknown customer
        return Fold(at, numbers)

    def _packed(self, fold: Fold) -> bytes:
        """The blob of the fold of one customer."""
        numbers = fold.numbers[0]
        # Bit by bit: missing numbers are equal, and an agreement of 0 is not a missing one.
        told = np.flatnonzero(numbers.view(np.int64) != self._nothing.view(np.int64))
        parts = (fold.at[0].astype(_FLOAT64), numbers[told].astype(_FLOAT64), told.astype(_UINT32))
        return self._stamp + b"".join(part.tobytes() for part in parts)

    def _read(self, blobs: Sequence[bytes | None]) -> Fold:
        """The folds of blobs [k]; of None, that of a history without events."""
        clocks = len(MODULES)
        at = np.full((len(blobs), clocks), np.nan)
        numbers = np.tile(self._nothing, (len(blobs), 1))
        start = _STAMP + clocks * _FLOAT64.itemsize
        for row, blob in enumerate(blobs):
            if blob is None:
                continue
            told, rest = divmod(len(blob) - start, _FLOAT64.itemsize + _UINT32.itemsize)
            if blob[:_STAMP] != self._stamp or told < 0 or rest:
                raise ArtefactError(
                    f"live features must be of layout {self._stamp.hex()}, however these are of {blob[:_STAMP].hex()} "
                    f"({len(blob)} bytes); make them again from the ledger's events"
                )
            at[row] = np.frombuffer(blob, _FLOAT64, clocks, _STAMP)
            positions = np.frombuffer(blob, _UINT32, told, start + told * _FLOAT64.itemsize)
            numbers[row, positions] = np.frombuffer(blob, _FLOAT64, told, start)
        return Fold(at, numbers)
