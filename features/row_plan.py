"""Which numbers of the views' states become which columns of a row: found out once per schema, then only read off.

Each view says what its numbers are (`Part`), in the words that all views share: counts that fade, times to count from,
numbers as they are. So all numbers of all views are read, faded and counted from together, in a handful of calls for
one customer as for many; what is left to a view is what only it knows, such as a share of visits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from features.schema import Bool, Float64, Int64, States

Kind = Literal["count", "sum", "since", "number"]
KINDS: tuple[Kind, ...] = ("count", "sum", "since", "number")


class Part(NamedTuple):
    """Some of a view's numbers that become columns alike; places: theirs among the numbers of a state.

    count   decayed to the moment, 0 where missing; of: its time constant, seconds
    sum     the same, missing where missing
    since   how long ago that time is at the moment; of: in which unit, seconds
    number  as it is
    """

    name: str
    kind: Kind
    places: Sequence[int]
    of: float = 1.0


class Source(NamedTuple):
    """A view: how long its states may be trusted, how many numbers they hold, and what these become."""

    view: str
    ttl: timedelta
    width: int
    parts: tuple[Part, ...]


class Told(NamedTuple):
    """What the states of n customers say at their moments, all views one under the other, a column per customer.

    known: bool [V, n], where a view's state is neither too old nor younger than the moment. said: float64 [N, n], what
    has faded until then, times (seconds since 1970) and numbers. since: float64 [T, n], how long ago the times are.
    """

    known: Bool
    said: Float64
    since: Float64


@dataclass(frozen=True)
class Plan:
    """What to read of the states of these sources, in the order of their parts, kind by kind."""

    sources: tuple[Source, ...]

    @cached_property
    def said(self) -> Mapping[str, slice]:
        """Where each part, as `view.name`, stands in what is said."""
        found: dict[str, slice] = {}
        start = 0
        for view, part, _ in self._of(*KINDS):
            if part.kind == "number" and start < self._numbers:
                start = self._numbers
            found[self._named(view, part)] = slice(start, start + len(part.places))
            start += len(part.places)
        return found

    @cached_property
    def since(self) -> Mapping[str, slice]:
        """Where each time stands among how long ago they are."""
        times = (self._named(view, part) for view, part, _ in self._of("since"))
        return {
            name: slice(self.said[name].start - self._fading, self.said[name].stop - self._fading) for name in times
        }

    @cached_property
    def columns(self) -> Mapping[str, Int64]:
        """Where each part's columns stand in one row of all that is said, and since."""
        behind = {name: slice(self.width + span.start, self.width + span.stop) for name, span in self.since.items()}
        return {name: np.arange(span.start, span.stop) for name, span in {**self.said, **behind}.items()}

    @cached_property
    def width(self) -> int:
        """How many columns are said."""
        return len(self._places)

    @cached_property
    def times(self) -> int:
        """How many times there are; the moments of the states that fade stand last among them."""
        return len(self._units)

    def _named(self, view: int, part: Part) -> str:
        return f"{self.sources[view].view}.{part.name}"

    def read(self, states: States, as_of: Float64) -> Told:
        """What the states of n customers say at their moments [n]; ValueError where they are of other views."""
        # A number of all customers lies in one piece: such pieces are picked, faded and masked, not single cells.
        found = [states[source.view] for source in self.sources]
        cells = np.concatenate([state.numbers.T for state in found] + [state.at[None] for state in found])
        if len(cells) != self._cells:
            widths = {source.view: (source.width, states[source.view].numbers.shape[1]) for source in self.sources}
            raise ValueError(f"states hold the numbers that their views say, however (said, held) are {widths}")
        ahead = cells[-len(found) :] - as_of  # [V, n], 0 or less: the age, negative
        known = (ahead <= 0) & (ahead >= self._oldest)  # False for NaN: never heard of
        told = np.where(known.take(self._views, axis=0), cells.take(self._places, axis=0), np.nan)
        since = as_of - told[self._fading : self._numbers]
        since /= self._units
        faded = told[: self._fading]
        faded *= np.exp(since[self._clocks_at :]).take(self._clock_of_faded, axis=0)
        counts = told[: self._counts]
        counts[np.isnan(counts)] = 0.0
        return Told(known, told, since)

    def _of(self, *kinds: str) -> Iterable[tuple[int, Part, int]]:
        """The parts of these kinds, kind by kind: the number of its view, the part, where its view's numbers start."""
        for kind in kinds:
            start = 0
            for view, source in enumerate(self.sources):
                yield from ((view, part, start) for part in source.parts if part.kind == kind)
                start += source.width

    @cached_property
    def _clocks(self) -> list[tuple[int, float]]:
        """View and time constant of whatever fades, each once: by the moment of that view's state it has faded."""
        return list(dict.fromkeys((view, part.of) for view, part, _ in self._of("count", "sum")))

    @cached_property
    def _places(self) -> Int64:
        """Where everything that is said stands when all views' numbers stand beside each other, then their moments."""
        inside = {kind: [start + place for _, part, start in self._of(kind) for place in part.places] for kind in KINDS}
        moments = [self._cells - len(self.sources) + view for view, _ in self._clocks]
        return np.array(
            [*inside["count"], *inside["sum"], *inside["since"], *moments, *inside["number"]], dtype=np.int64
        )

    @cached_property
    def _views(self) -> Int64:
        """Of which view that is."""
        inside = {kind: [view for view, part, _ in self._of(kind) for _ in part.places] for kind in KINDS}
        moments = [view for view, _ in self._clocks]
        return np.array(
            [*inside["count"], *inside["sum"], *inside["since"], *moments, *inside["number"]], dtype=np.int64
        )

    @cached_property
    def _counts(self) -> int:
        return self._many("count")

    @cached_property
    def _fading(self) -> int:
        return self._many("count", "sum")

    @cached_property
    def _numbers(self) -> int:
        """Where the numbers begin."""
        return self._many("count", "sum", "since") + len(self._clocks)

    @cached_property
    def _clocks_at(self) -> int:
        """Where the moments of the states begin among the times."""
        return self._many("since")

    def _many(self, *kinds: str) -> int:
        return sum(len(part.places) for _, part, _ in self._of(*kinds))

    @cached_property
    def _cells(self) -> int:
        """Numbers of all views, and the moments of their states."""
        return sum(source.width + 1 for source in self.sources)

    @cached_property
    def _oldest(self) -> Float64:
        return -np.array([[source.ttl.total_seconds()] for source in self.sources])

    @cached_property
    def _clock_of_faded(self) -> Int64:
        places = {clock: place for place, clock in enumerate(self._clocks)}
        found = [places[view, part.of] for view, part, _ in self._of("count", "sum") for _ in part.places]
        return np.array(found, dtype=np.int64)

    @cached_property
    def _units(self) -> Float64:
        """What since is divided by; for what fades, -tau, so that it comes to the exponent."""
        times = [part.of for _, part, _ in self._of("since") for _ in part.places]
        return np.array([*times, *(-tau for _, tau in self._clocks)])[:, None]
