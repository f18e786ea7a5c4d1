"""Who may be offered what, and through which channel: hard rules, before any score.

Every rule answers with booleans for many customers at once (batch scoring uses the same ones) and with named reasons
for one customer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from features.catalog import Catalog
from features.schema import Bool, Rows
from serving.decision import Removed


def rankable(rows: Rows, catalog: Catalog, eligible: Sequence[frozenset[str] | None]) -> Bool:
    """Bool [n, P]: products that customer n may be offered.

    A holder is not offered a `holdable` product again; where `eligible[n]` is a set, only its products are allowed.
    """
    if len(eligible) != len(rows):
        raise ValueError(f"rankable needs one eligible set (or None) per row, however {len(eligible)} != {len(rows)}")
    allowed: Bool = ~_held_again(rows, catalog)
    for position, wanted in enumerate(eligible):
        if wanted is not None:
            allowed[position] &= np.array([product in wanted for product in catalog.product_ids], dtype=np.bool_)
    return allowed


def removed_products(rows: Rows, catalog: Catalog, eligible: frozenset[str] | None) -> Iterator[Removed]:
    """The reasons behind `rankable` for the single customer in `rows`, plus eligible ids the catalogue lacks."""
    held = _held_again(rows, catalog)[0]
    for position, product in enumerate(catalog.product_ids):
        if eligible is not None and product not in eligible:
            yield Removed("product", product, "not_eligible", "not in the request's eligible list")
        elif held[position]:
            yield Removed("product", product, "held", "the customer holds it, and a holder is not offered it again")
    for product in sorted((eligible or frozenset()) - set(catalog.product_ids)):
        yield Removed("product", product, "unknown_product", "not in the catalogue")


def contactable(refused: Bool, catalog: Catalog, channels: frozenset[str] | None) -> Bool:
    """Bool [n, H]: outbound channels with consent, within `channels` where that is a set. refused: bool [n, H]."""
    outbound = np.array([channel.outbound for channel in catalog.channels], dtype=np.bool_)
    asked = np.array([channels is None or channel in channels for channel in catalog.channel_ids], dtype=np.bool_)
    allowed: Bool = (outbound & asked)[None, :] & ~refused
    return allowed


def removed_channels(refused: Bool, catalog: Catalog, channels: frozenset[str] | None) -> Iterator[Removed]:
    """The reasons behind `contactable` for a single customer (refused: bool [1, H]), plus asked ids it lacks."""
    for position, channel in enumerate(catalog.channels):
        if not channel.outbound:
            yield Removed("channel", channel.id, "inbound_only", "the customer comes by it; we cannot send on it")
        elif channels is not None and channel.id not in channels:
            yield Removed("channel", channel.id, "not_allowed", "not in the request's channels")
        elif refused[0, position]:
            yield Removed("channel", channel.id, "no_consent", "the customer opted out of it")
    for channel_id in sorted((channels or frozenset()) - set(catalog.channel_ids)):
        yield Removed("channel", channel_id, "unknown_channel", "not in the catalogue")


def _held_again(rows: Rows, catalog: Catalog) -> Bool:
    """Bool [n, P]: held, and of a kind that is not offered twice."""
    holdable = np.array([product.holdable for product in catalog.products], dtype=np.bool_)
    again: Bool = rows.held & holdable[None, :]
    return again
