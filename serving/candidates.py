"""The actions that are possible for one customer: product × channel × content, each with its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.catalog import Catalog, Channel, Content, Product
from features.schema import Bool
from serving.content import ContentError, Contents, Value
from serving.decision import Action, Removed


@dataclass(frozen=True)
class Offer:
    """An action, with the positions of its product and channel in the catalogue."""

    action: Action
    product: int
    channel: int


def offers(
    catalog: Catalog,
    contents: Contents,
    products: Bool,
    channels: Bool,
    customer: Mapping[str, Value],
    language: str | None,
) -> tuple[list[Offer], list[Removed]]:
    """Every possible action over products [P] and channels [H] that are True, in catalogue order, and what fell out.

    Texts are rendered here, before the choice: were a failing one found after it, the propensity would be wrong.
    """
    found: list[Offer] = []
    removed: list[Removed] = []
    for product_at in np.flatnonzero(products):
        product = catalog.products[product_at]
        for channel_at in np.flatnonzero(channels):
            channel = catalog.channels[channel_at]
            if not contents:
                found.append(Offer(Action(product.id, channel.id, None, None), int(product_at), int(channel_at)))
                continue
            matching = contents.matching(product, channel, language)
            actions, failed = rendered(contents, matching, product, channel, customer)
            found += [Offer(action, int(product_at), int(channel_at)) for action in actions]
            removed += failed
    return found, removed


def rendered(
    contents: Contents,
    matching: Sequence[Content],
    product: Product | None,
    channel: Channel,
    customer: Mapping[str, Value],
) -> tuple[list[Action], list[Removed]]:
    """An action per content that can be rendered for the customer on this channel, and what fell out."""
    product_id = product.id if product else None
    pair = f"{product_id or ''}/{channel.id}"
    actions: list[Action] = []
    removed: list[Removed] = []
    if not matching:
        removed.append(Removed("action", pair, "no_content", "no content for this product on this channel"))
    for content in matching:
        try:
            text = contents.render(content, product, channel, customer)
        except ContentError as error:
            removed.append(Removed("action", f"{pair}/{content.id}", "content_failed", str(error)))
            continue
        actions.append(Action(product_id, channel.id, content.id, text))
    return actions, removed
