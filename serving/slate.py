"""The candidates of a decision, column by column: an object for each is made when somebody looks at it.

A decision draws one of hundreds. Its answer needs the drawn one, its record takes the columns as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, overload

from features.schema import Float64
from serving.candidates import Offers
from serving.decision import NO_CONTACT, Action, Candidate, Columns
from serving.value import Factors

_VALUE = itemgetter(0)


@dataclass(frozen=True, eq=False)
class Slate(Columns):
    """Offers with their values, float64 [A], and what these are made of; no contact comes last. drawn: 0…A."""

    offers: Offers
    worth: Float64
    factors: Factors
    drawn: int

    @cached_property
    def values(self) -> list[float]:
        """Of each candidate, A + 1."""
        return [*self.worth.tolist(), NO_CONTACT.value]

    @property
    def top(self) -> float:
        """The highest value."""
        return max(self.values)

    @cached_property
    def action(self) -> Action | None:
        """The drawn one; None for no contact."""
        return self.offers.action(self.drawn) if self.drawn < len(self.offers) else None

    @cached_property
    def ways(self) -> dict[str, int]:
        """Where the best offer of the drawn product on each channel stands, in catalogue order."""
        found: dict[str, int] = {}
        if self.drawn < len(self.offers):
            values, product = self.values, self.offers.product
            (places,) = (product == product[self.drawn]).nonzero()
            for place, action in zip(places.tolist(), self.offers.actions.take(places).tolist(), strict=True):
                best = found.get(action.channel)
                if best is None or values[place] > values[best]:
                    found[action.channel] = place
        return found

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Other channels for the drawn product, by their best content's value."""
        if self.action is None:
            return ()
        chosen = self.action.channel
        # Sorting keeps the order of equals, so also of those that are turned around.
        others = [(-self.values[place], channel) for channel, place in self.ways.items() if channel != chosen]
        return tuple([channel for _, channel in sorted(others, key=_VALUE)])

    def says(self, channel: str) -> Action | None:
        return self.offers.action(self.ways[channel]) if channel in self.ways else None

    def documents(self, propensities: Sequence[float]) -> list[dict[str, Any]]:
        offered = [
            {
                "product_id": action.product_id,
                "channel": action.channel,
                "content_id": action.content_id,
                "value": value,
                "factors": made_of,
                "propensity": propensity,
            }
            for action, value, made_of, propensity in zip(
                self.offers.actions.tolist(), self.values, self.factors.rows(), propensities, strict=False
            )
        ]
        return [*offered, NO_CONTACT.document(propensities[-1])]

    def __len__(self) -> int:
        return len(self.offers) + 1

    @overload
    def __getitem__(self, place: int) -> Candidate: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Candidate, ...]: ...
    def __getitem__(self, place: int | slice) -> Candidate | tuple[Candidate, ...]:
        return self._all[place]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as of any sequence that is compared by what is in it

    @cached_property
    def _all(self) -> tuple[Candidate, ...]:
        offered = (
            Candidate(self.offers.action(place), value, made_of)
            for place, (value, made_of) in enumerate(zip(self.values, self.factors.rows(), strict=False))
        )
        return (*offered, NO_CONTACT)
