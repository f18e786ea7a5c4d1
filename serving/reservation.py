"""From a choice to the contact that the ledger reserves: what may be sent when, and which caps the ledger checks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from features.catalog import Catalog
from serving.candidates import Offers
from serving.decision import Decision, Removed
from serving.policies import Layers
from serving.situation import Situation


def sendable(layers: Layers, found: Offers, at: Situation) -> tuple[Offers, tuple[Removed, ...]]:
    """The offers that may be sent when quiet hours first allow it, and the pairs that may not."""
    if not len(found) or not layers.may_refuse_pairs(at):
        return found, ()
    catalog = layers.catalog
    width = len(catalog.channels)
    pair = found.product * width + found.channel  # rises, for offers stand in catalogue order
    present = pair[np.r_[True, pair[1:] != pair[:-1]]].tolist()
    pairs = ((catalog.products[one // width], catalog.channels[one % width]) for one in present)
    refused = layers.pairs(pairs, at)
    if not refused:
        return found, ()
    gone = [one for one in present if _ids(catalog, one) in refused]
    return found.take(~np.isin(pair, gone)), tuple(refused.values())


def _ids(catalog: Catalog, pair: int) -> tuple[str, str]:
    product, channel = divmod(pair, len(catalog.channels))
    return catalog.products[product].id, catalog.channels[channel].id


def reserved(layers: Layers, decision: Decision, at: Situation) -> Decision:
    """The decision with the contact that it makes and the caps which that has to leave room under.

    A better hour must not outlast what the rules allow, a campaign's last day say: then it is the first hour that they
    allow. The same goes for the channels that follow, which are left out then.
    """
    if decision.action is None or not decision.chain:
        return decision
    channels = layers.channels_by_id
    product = layers.products_by_id.get(decision.action.product_id or "")
    first, *others = decision.chain
    if not layers.allowed(product, channels[first.channel], first.send_at, at):
        send_at = layers.defer(first.channel, at.as_of, at)
        first = replace(first, send_at=send_at, deadline=send_at + (first.deadline - first.send_at))
    kept = [hop for hop in others if layers.allowed(product, channels[hop.channel], hop.send_at, at)]
    fallback_channels = decision.fallback_channels
    if len(kept) < len(others):
        left_out = {hop.channel for hop in others if hop not in kept}
        fallback_channels = tuple(name for name in fallback_channels if name not in left_out)
    channel = channels[first.channel]
    return decision.but(
        chain=(first, *kept),
        fallback_channels=fallback_channels,
        contact=layers.contact(
            decision.ask.customer_id, product, channel, first.send_at, at.purpose, decision.decision_id
        ),
        caps=layers.caps_of(product, channel, first.send_at, at),
    )
