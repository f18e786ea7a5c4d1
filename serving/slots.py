"""Every place of a catalogue that an action can take: product × channel × content, with what is the same for everybody.

Which contents fit a pair in a language, what a text without a word about the customer says, and which pairs have no
content is found out once per language, not once per decision. What is left are texts about the customer. Most of them
only print attributes: who has these gets a text, no longer than theirs and the rest of it together, so that such a text
is proved to be possible without being written; it is written where it is chosen. Every other one is written before the
choice: were one that fails found after it, the propensity would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from features.catalog import Catalog, Channel, Content, Product
from features.schema import Bool, Int64
from features.templates import only_prints, reads
from serving.candidates import Draft, Offers, rendered, written
from serving.content import Contents, Value
from serving.decision import Action, Removed
from serving.segments import GSM_ALONE, UCS2_ALONE, is_plain, septets, units

_KEPT_TEXTS = 8_192
_KEPT_WIDTHS = 512
_WITHOUT_LIMIT = 1 << 40
_LONGEST_ESCAPE = 5
"""Characters that escaping makes of one, as in &#34; for a quotation mark."""


@dataclass(frozen=True)
class _Place:
    """A text about the customer: what it looks at, and whether it does no more than print `prints`."""

    content: Content
    product: Product
    channel: Channel
    reads: tuple[str, ...]
    prints: tuple[str, ...] | None


class Slots:
    """The slots of a catalogue in one language, in catalogue order.

    `product`, `channel`: int64 [S], their positions in the catalogue. `_outcome`: object [S], an Action, a Removed, or
    a Draft where the text is about the customer.
    """

    def __init__(self, catalog: Catalog, contents: Contents, language: str | None) -> None:
        self._contents = contents
        self._catalog = catalog  # it stays, and so do the objects that the cache of slots names by their addresses
        self._places: dict[int, _Place] = {}
        self._write = lru_cache(_KEPT_TEXTS)(self._written)
        self._unsure = lru_cache(_KEPT_WIDTHS)(self._not_sure)
        products: list[int] = []
        channels: list[int] = []
        outcomes: list[Action | Removed | Draft] = []
        for product_at, product in enumerate(catalog.products):
            for channel_at, channel in enumerate(catalog.channels):
                for outcome in self._of_pair(product, channel, language, len(outcomes)):
                    outcomes.append(outcome)
                    products.append(product_at)
                    channels.append(channel_at)
        self.product: Int64 = np.array(products, dtype=np.int64)
        self.channel: Int64 = np.array(channels, dtype=np.int64)
        self._outcome = np.empty(len(outcomes), dtype=object)
        self._outcome[:] = outcomes
        self._fallen: Bool = np.array([isinstance(one, Removed) for one in outcomes], dtype=np.bool_)
        self._some_fell = bool(self._fallen.any())
        self._measure()

    def offers(self, products: Bool, channels: Bool, customer: Mapping[str, Value]) -> tuple[Offers, list[Removed]]:
        """Every possible action over products [P] and channels [H] that are True, in order, and what fell out."""
        at = (products.take(self.product) & channels.take(self.channel)).nonzero()[0]
        outcome = self._outcome.take(at)
        unsure = self._unsure(tuple([_needed(names, customer) for names in self._prints])) if self._places else None
        if unsure is not None or self._some_fell:
            fallen = self._fallen.take(at)
            for place in () if unsure is None else unsure.take(at).nonzero()[0].tolist():
                outcome[place] = made = self.text(int(at[place]), customer)
                fallen[place] = isinstance(made, Removed)
            if fallen.any():
                left = ~fallen
                removed: list[Removed] = outcome[fallen].tolist()
                return Offers(outcome[left], self.product[at[left]], self.channel[at[left]], customer), removed
        return Offers(outcome, self.product.take(at), self.channel.take(at), customer), []

    def text(self, slot: int, customer: Mapping[str, Value]) -> Action | Removed:
        """The action of a slot with its text for this customer, or why there is none."""
        values = (customer.get(name) for name in self._places[slot].reads)
        return self._write(slot, tuple((value.__class__, value) for value in values))  # 1, 1.0 and True are equal

    def _of_pair(
        self, product: Product, channel: Channel, language: str | None, start: int
    ) -> Iterator[Action | Removed | Draft]:
        contents = self._contents
        if not contents:
            yield Action(product.id, channel.id, None, None)
            return
        matching = contents.matching(product, channel, language)
        if not matching:
            yield from rendered(contents, (), product, channel, {})[1]
        for slot, content in enumerate(matching, start=start):
            if contents.same_for_all(content):
                yield written(contents, content, product, channel, {})
            else:
                place = _Place(content, product, channel, reads(content.template), only_prints(content.template))
                self._places[slot] = place
                yield Draft(product.id, channel.id, content.id, partial(self._action, slot))

    def _action(self, slot: int, customer: Mapping[str, Value]) -> Action:
        made = self.text(slot, customer)
        assert isinstance(made, Action), "what was proved to be possible is"
        return made

    def _written(self, slot: int, values: tuple[tuple[type, Value | None], ...]) -> Action | Removed:
        place = self._places[slot]
        customer = {name: value for name, (_, value) in zip(place.reads, values, strict=True) if value is not None}
        return written(self._contents, place.content, place.product, place.channel, customer)

    def _measure(self) -> None:
        """`_room`: int64 [2, S], how much a customer's own words may take, any words and plain ones; `_printed`: which
        of `_prints` they are. A text that does more than print has no room at all; one for everybody needs none."""
        self._prints = list(dict.fromkeys(place.prints for place in self._places.values() if place.prints is not None))
        self._printed: Int64 = np.full(len(self._outcome), len(self._prints), dtype=np.int64)
        self._room: Int64 = np.zeros((2, len(self._outcome)), dtype=np.int64)
        for slot, place in self._places.items():
            self._room[:, slot] = -1
            if place.prints is not None:
                made = self._written(slot, tuple((str, "") for _ in place.reads))
                self._printed[slot] = self._prints.index(place.prints)
                self._room[:, slot] = (-1, -1) if isinstance(made, Removed) else _room(made.text or "", place.channel)

    def _not_sure(self, needed: tuple[tuple[int, bool], ...]) -> Bool | None:
        """Bool [S]: slots whose text may be impossible for a customer with such words, one of `needed` for each of
        `_prints`; None: there are none. A text that is the same for everybody is sure."""
        width = np.array([*(width for width, _ in needed), 0], dtype=np.int64)
        plain = np.array([*(int(plain) for _, plain in needed), 0], dtype=np.int64)
        unsure: Bool = self._room[plain[self._printed], np.arange(len(self._printed))] < width[self._printed]
        return unsure if unsure.any() else None


def _needed(names: tuple[str, ...], customer: Mapping[str, Value]) -> tuple[int, bool]:
    """Characters of a customer's attributes together, and whether all are plain; too many where one is missing."""
    texts = [str(customer[name]) for name in names if name in customer]
    if len(texts) < len(names):
        return _WITHOUT_LIMIT + 1, False
    return sum(map(len, texts)), all(map(is_plain, texts))


def _room(text: str, channel: Channel) -> tuple[int, int]:
    """Characters that surely fit into a text for a channel, any characters and plain ones."""
    if channel.max_length is None:
        return _WITHOUT_LIMIT, _WITHOUT_LIMIT
    if channel.format == "sms":  # one segment is always allowed
        taken = septets(text)
        return (UCS2_ALONE - units(text)) // 2, -1 if taken is None else GSM_ALONE - taken
    room = (channel.max_length - len(text)) // (_LONGEST_ESCAPE if channel.format == "html" else 1)
    return room, room
