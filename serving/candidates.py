"""The actions that are possible for one customer: product × channel × content, each with its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from features.catalog import Channel, Content, Product
from features.schema import Bool, Int64
from serving.content import ContentError, Contents, Value
from serving.decision import Action, Removed


@dataclass(frozen=True, eq=False)
class Draft:
    """An action whose text is sure to be possible and not yet written."""

    product_id: str
    channel: str
    content_id: str
    write: Callable[[Mapping[str, Value]], Action]


@dataclass(frozen=True, eq=False)
class Offers:
    """A possible actions in catalogue order, column by column.

    actions: object [A], Action or Draft. product, channel: int64 [A], their positions in the catalogue. customer: whom
    drafts are written for.
    """

    actions: npt.NDArray[np.object_]
    product: Int64
    channel: Int64
    customer: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, actions: Sequence[Action], products: Sequence[int], channels: Sequence[int]) -> Offers:
        """Offers of actions with their texts."""
        held = np.empty(len(actions), dtype=object)
        held[:] = actions
        return cls(held, np.array(products, dtype=np.int64), np.array(channels, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.actions)

    def action(self, place: int) -> Action:
        """The action at a place, with its text."""
        made = self.actions[place]
        return made if isinstance(made, Action) else made.write(self.customer)

    def take(self, kept: Bool) -> Offers:
        """Those of them where `kept` [A]."""
        return Offers(self.actions[kept], self.product[kept], self.channel[kept], self.customer)


def rendered(
    contents: Contents,
    matching: Sequence[Content],
    product: Product | None,
    channel: Channel,
    customer: Mapping[str, Value],
) -> tuple[list[Action], list[Removed]]:
    """An action per content that can be rendered for the customer on this channel, and what fell out."""
    made: list[Action | Removed] = [written(contents, content, product, channel, customer) for content in matching]
    if not made:
        made = [Removed("action", _pair(product, channel), "no_content", "no content for this product on this channel")]
    actions = [one for one in made if isinstance(one, Action)]
    return actions, [one for one in made if isinstance(one, Removed)]


def written(
    contents: Contents, content: Content, product: Product | None, channel: Channel, customer: Mapping[str, Value]
) -> Action | Removed:
    """The action with this content's text for the customer, or why there is none."""
    try:
        text = contents.render(content, product, channel, customer)
    except ContentError as error:
        return Removed("action", f"{_pair(product, channel)}/{content.id}", "content_failed", str(error))
    return Action(product.id if product else None, channel.id, content.id, text)


def _pair(product: Product | None, channel: Channel) -> str:
    return f"{product.id if product else ''}/{channel.id}"
