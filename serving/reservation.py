"""From a choice to the contact that the ledger reserves: what may be sent when, and which caps the ledger checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serving.candidates import Offer
from serving.decision import Decision, Removed
from serving.policies import Layers
from serving.situation import Situation


def sendable(layers: Layers, found: Sequence[Offer], at: Situation) -> tuple[list[Offer], tuple[Removed, ...]]:
    """The offers that may be sent when quiet hours first allow it, and the pairs that may not."""
    catalog = layers.catalog
    pairs = dict.fromkeys((offer.product, offer.channel) for offer in found)
    refused = layers.pairs(((catalog.products[product], catalog.channels[channel]) for product, channel in pairs), at)
    left = [offer for offer in found if (offer.action.product_id, offer.action.channel) not in refused]
    return left, tuple(refused.values())


def reserved(layers: Layers, decision: Decision, at: Situation) -> Decision:
    """The decision with the contact that it makes and the caps which that has to leave room under.

    A better hour must not outlast what the rules allow, a campaign's last day say: then it is the first hour that they
    allow. The same goes for the channels that follow, which are left out then.
    """
    if decision.action is None or not decision.chain:
        return decision
    products = {product.id: product for product in layers.catalog.products}
    channels = {channel.id: channel for channel in layers.catalog.channels}
    product = products.get(decision.action.product_id or "")
    first, *others = decision.chain
    if not layers.allowed(product, channels[first.channel], first.send_at, at):
        send_at = layers.defer(first.channel, at.as_of, at)
        first = replace(first, send_at=send_at, deadline=send_at + (first.deadline - first.send_at))
    kept = [hop for hop in others if layers.allowed(product, channels[hop.channel], hop.send_at, at)]
    left_out = {hop.channel for hop in others if hop not in kept}
    channel = channels[first.channel]
    return replace(
        decision,
        chain=(first, *kept),
        fallback_channels=tuple(name for name in decision.fallback_channels if name not in left_out),
        contact=layers.contact(
            decision.ask.customer_id, product, channel, first.send_at, at.purpose, decision.decision_id
        ),
        caps=layers.caps_of(product, channel, first.send_at, at),
    )
