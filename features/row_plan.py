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
    """What the states of n customers say at their moments, all views beside each other.

    known: bool [n, V], where a view's state is neither too old nor younger than the moment. faded: float64 [n, counts
    and then sums]. times: float64 [n, T], seconds since 1970; since: how long ago that was. numbers: float64 [n, k].
    """

    known: Bool
    faded: Float64
    times: Float64
    since: Float64
    numbers: Float64


@dataclass(frozen=True)
class Plan:
    """What to read of the states of these sources, in the order of their parts, kind by kind."""

    sources: tuple[Source, ...]

    @cached_property
    def spans(self) -> Mapping[str, slice]:
        """Where each part, as `view.name`, stands among those of its kind; counts and sums stand in one row."""
        found: dict[str, slice] = {}
        for kinds in (("count", "sum"), ("since",), ("number",)):
            start = 0
            for view, part, _ in self._of(*kinds):
                found[self._named(view, part)] = slice(start, start + len(part.places))
                start += len(part.places)
        return found

    @cached_property
    def columns(self) -> Mapping[str, Int64]:
        """Where each part's columns stand when all that is told stands in one row: faded, since, numbers."""
        starts = {"count": 0, "sum": 0, "since": self._fading, "number": self._timed}
        return {
            name: np.arange(starts[part.kind] + span.start, starts[part.kind] + span.stop)
            for view, part, _ in self._of(*KINDS)
            for name in [self._named(view, part)]
            for span in [self.spans[name]]
        }

    @cached_property
    def width(self) -> int:
        """How many columns are told."""
        return len(self._places_of_told)

    def _named(self, view: int, part: Part) -> str:
        return f"{self.sources[view].view}.{part.name}"

    def read(self, states: States, as_of: Float64) -> Told:
        """What the states of n customers say at their moments [n]; ValueError where they are of other views."""
        found = [states[source.view] for source in self.sources]
        cells = np.concatenate([state.numbers for state in found] + [state.at[:, None] for state in found], axis=1)
        if cells.shape[1] != self._cells:
            widths = {source.view: (source.width, states[source.view].numbers.shape[1]) for source in self.sources}
            raise ValueError(f"states hold the numbers that their views say, however (said, held) are {widths}")
        moments = as_of[:, None]
        ahead = cells[:, -len(found) :] - moments  # [n, V], 0 or less: the age, negative
        known = (ahead <= 0) & (ahead >= self._oldest)  # False for NaN: never heard of
        told = np.where(known.take(self._view_of_told, axis=1), cells.take(self._places_of_told, axis=1), np.nan)
        faded, times = told[:, : self._fading], told[:, self._fading : self._timed]
        counts = told[:, : self._counts]
        counts[np.isnan(counts)] = 0.0
        ages = np.where(known, ahead, 0.0).take(self._clock_of_tau, axis=1)
        ages /= self._taus
        faded *= np.exp(ages).take(self._tau_of_faded, axis=1)
        since = moments - times
        since /= self._units
        return Told(known, faded, times, since, told[:, self._timed :])

    def _of(self, *kinds: str) -> Iterable[tuple[int, Part, int]]:
        """The parts of these kinds, kind by kind: the number of its view, the part, where its view's numbers start."""
        for kind in kinds:
            start = 0
            for view, source in enumerate(self.sources):
                yield from ((view, part, start) for part in source.parts if part.kind == kind)
                start += source.width

    def _places(self, *kinds: str) -> Int64:
        """Where the numbers of such parts stand when all views' numbers stand beside each other."""
        return np.array([start + place for _, part, start in self._of(*kinds) for place in part.places], dtype=np.int64)

    @cached_property
    def _places_of_told(self) -> Int64:
        return self._places(*KINDS)

    @cached_property
    def _view_of_told(self) -> Int64:
        return np.array([view for view, part, _ in self._of(*KINDS) for _ in part.places], dtype=np.int64)

    @cached_property
    def _fading(self) -> int:
        return len(self._places("count", "sum"))

    @cached_property
    def _timed(self) -> int:
        return len(self._places("count", "sum", "since"))

    @cached_property
    def _cells(self) -> int:
        """Numbers of all views, and the moments of their states."""
        return sum(source.width + 1 for source in self.sources)

    @cached_property
    def _oldest(self) -> Float64:
        return -np.array([source.ttl.total_seconds() for source in self.sources])

    @cached_property
    def _counts(self) -> int:
        return len(self._places("count"))

    @cached_property
    def _clocks(self) -> list[tuple[int, float]]:
        """View and time constant of whatever fades, each once."""
        return list(dict.fromkeys((view, part.of) for view, part, _ in self._of("count", "sum")))

    @cached_property
    def _clock_of_tau(self) -> Int64:
        return np.array([view for view, _ in self._clocks], dtype=np.int64)

    @cached_property
    def _taus(self) -> Float64:
        return np.array([tau for _, tau in self._clocks])

    @cached_property
    def _tau_of_faded(self) -> Int64:
        places = {clock: place for place, clock in enumerate(self._clocks)}
        return np.array(
            [places[view, part.of] for view, part, _ in self._of("count", "sum") for _ in part.places], dtype=np.int64
        )

    @cached_property
    def _units(self) -> Float64:
        return np.array([part.of for _, part, _ in self._of("since") for _ in part.places])
