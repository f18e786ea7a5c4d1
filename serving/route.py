"""A given message finds its way: which channel, which others if that one fails, and the text on each.

    look up → known? → channels (for marketing, the product too) allowed → score → render → value → choose → time

The message is a service or mandatory one, or a product that somebody chose to offer. Whether to send it is not the
question, so no contact is the answer only where no channel can be used, and then the reasons say why. What protects the
customer holds as for any decision: consent per purpose, reachability, quiet hours, and for marketing every limit. No
experiment's arm decides about it, and a mandatory message is not explored with: it takes the best way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from features.catalog import Content, Product
from features.columns import Purpose
from features.schema import Bool, Float64
from serving.candidates import Offers, rendered
from serving.decide import Decider
from serving.decision import Action, Ask, Candidate, Decision, Message, Reason, Removed
from serving.explain import blocked, fallbacks, unknown_views, unknown_zone, unscored
from serving.lookup import Look
from serving.policy import draw
from serving.reservation import reserved, sendable
from serving.scoring import Scores
from serving.value import pressure


@dataclass(frozen=True)
class _Given:
    """A message of the catalogue. place: of its product in the catalogue. content: None, any of the product's."""

    product: Product | None
    place: int | None
    content: Content | None
    worth: float | None


@dataclass(frozen=True)
class _Ways:
    """The actions that can carry the message, with what they are worth: float64 [A]."""

    found: Offers
    values: Float64
    removed: tuple[Removed, ...]
    scores: tuple[Scores, ...]
    """Of the channels, and of the products where they were asked."""


def decision_for(decider: Decider, ask: Ask, decision_id: str) -> Decision:
    """The decision for a question: a message's way where one is given, else the next best action."""
    return decider.decide(ask, decision_id) if ask.message is None else route(decider, ask, ask.message, decision_id)


def route(decider: Decider, ask: Ask, message: Message, decision_id: str) -> Decision:
    """The best way for `message`, or no contact and why; FeaturesUnavailable where consent cannot be read.

    The value of a candidate is P(the channel works) × worth − cost where the message says what it is worth, for
    marketing what the offer is worth, and otherwise P(the channel works) alone.
    """
    look = decider.look_up(ask)
    given = _given(decider, ask, message)
    stop = blocked(look.known, look.later)
    if stop or isinstance(given, Reason):
        reason = stop or given
        assert isinstance(reason, Reason)
        return replace(
            decider.no_contact(ask, decision_id, (reason,), ()), features=look.states, past=look.situation.past
        )
    ways = _ways(decider, ask, look, given)
    decision = _choose(decider, ask, decision_id, ways)
    decision = decider.scheduler.timed(decision, decider.catalog, look.states, look.situation.zone)
    return replace(
        reserved(decider.layers, decision, look.situation),
        degraded=(
            *(reason for scores in ways.scores for reason in scores.degraded),
            *decider.scheduler.missing,
            *unknown_views(look.later),
            *unknown_zone(look.customer.get("time_zone"), look.situation.zone),
        ),
        dropped=sum(len(scores.dropped) for scores in ways.scores),
        features=look.states,
        past=look.situation.past,
    )


def _given(decider: Decider, ask: Ask, message: Message) -> _Given | Reason:
    """The message in the catalogue, or why there is none."""
    if message.content_id is not None and message.content_id not in decider.contents:
        return Reason("unknown_content", "the catalogue has no content of this id")
    content = None if message.content_id is None else decider.contents[message.content_id]
    about = content.product_id if content else None
    product_id = message.product_id or about
    if about not in (None, product_id):
        return Reason("content_of_another_product", "the content is about another product than the message")
    if product_id is None and ask.purpose == Purpose.MARKETING:
        return Reason("no_product", "a marketing message is about a product, whose limits it keeps")
    if product_id is None:
        return _Given(None, None, content, message.worth)
    if product_id not in decider.catalog.product_ids:
        return Reason("unknown_product", "the catalogue has no product of this id")
    place = decider.catalog.product_ids.index(product_id)
    return _Given(decider.catalog.products[place], place, content, message.worth)


def _ways(decider: Decider, ask: Ask, look: Look, given: _Given) -> _Ways:
    """The ways that the rules leave, in catalogue order."""
    offered = given.product if ask.purpose == Purpose.MARKETING else None
    asked = replace(ask, eligible=(offered.id,) if offered else None)
    products, channels = decider.eligible(asked, look)
    # Where nothing is offered, whether a product may be is no question: the message may be about one that is held.
    about = offered.id if offered else None
    removed = [item for item in decider.removed(asked, look) if item.subject != "product" or item.id == about]
    if given.content is not None and given.content.channel is not None:
        only = np.array([channel == given.content.channel for channel in decider.catalog.channel_ids])
        channels = channels & only
    if offered and not products.any():
        channels = np.zeros_like(channels)
    scores = decider.channels.score(look.rows_of, channels)
    found, failed = _offers(decider, ask, look, given, np.isfinite(scores.probabilities))
    removed += [*unscored("channel", scores), *failed]
    if offered:
        found, refused = sendable(decider.layers, found, look.situation)
        removed += refused
    if offered and given.worth is None and len(found):
        product_scores = decider.products.score(look.rows_of, products)
        values = _worth_of_offers(decider, look, found, product_scores, scores)
        return _Ways(found, values, tuple(removed), (scores, product_scores))
    return _Ways(found, _worth_of_reaching(decider, given, found, scores), tuple(removed), (scores,))


def _offers(decider: Decider, ask: Ask, look: Look, given: _Given, channels: Bool) -> tuple[Offers, list[Removed]]:
    """An offer per content and channel that can carry the message, and what fell out."""
    found: list[Action] = []
    places: list[int] = []
    removed: list[Removed] = []
    contents = decider.contents
    language = decider.language(ask, look)
    for at in np.flatnonzero(channels).tolist():
        channel = decider.catalog.channels[at]
        if not contents:
            product_id = given.product.id if given.product else None
            found.append(Action(product_id, channel.id, None, None))
            places.append(at)
            continue
        matching = (given.content,) if given.content else contents.matching(given.product, channel, language)
        actions, failed = rendered(contents, matching, given.product, channel, look.customer)
        found += actions
        places += [at] * len(actions)
        removed += failed
    about = -1 if given.place is None else given.place  # about no product, and nothing asks where that is
    return Offers.of(found, [about] * len(found), places), removed


def _worth_of_offers(decider: Decider, look: Look, found: Offers, products: Scores, channels: Scores) -> Float64:
    """Float64 [A]: what each offer is expected to be worth."""
    scores = (products.probabilities, channels.probabilities)
    worth, customer = decider.worth, look.customer
    return worth.total(worth.factors_at(*scores, found.product, found.channel, pressure(look.rows), customer))


def _worth_of_reaching(decider: Decider, given: _Given, found: Offers, scores: Scores) -> Float64:
    """Float64 [A]: what it is worth that the message is noticed, less the channel's cost; P alone without a worth."""
    reach: Float64 = scores.probabilities[found.channel]
    return reach if given.worth is None else reach * given.worth - decider.worth.costs[found.channel]


def _choose(decider: Decider, ask: Ask, decision_id: str, ways: _Ways) -> Decision:
    """Draw among the ways; no contact where there is none."""
    versions = decider.versions(
        {panel.question: s.version for panel, s in zip((decider.channels, decider.products), ways.scores, strict=False)}
    )
    if not len(ways.found):
        nothing = decider.no_contact(ask, decision_id, (_nothing(ways),), ways.removed)
        return replace(nothing, versions=versions)
    candidates = tuple(Candidate(ways.found.action(place), value) for place, value in enumerate(ways.values.tolist()))
    propensities = _propensities(decider, ask, ways.values)
    drawn = draw(propensities, decision_id)
    chosen = candidates[drawn]
    return Decision(
        decision_id=decision_id,
        ask=ask,
        action=chosen.action,
        propensity=float(propensities[drawn]),
        value=chosen.value,
        candidates=candidates,
        propensities=tuple(float(propensity) for propensity in propensities),
        removed=ways.removed,
        reasons=(_why(candidates, drawn),),
        degraded=(),
        dropped=0,
        fallback_channels=fallbacks(candidates, chosen),
        versions=versions,
    )


def _propensities(decider: Decider, ask: Ask, values: Float64) -> Float64:
    """Float64 [A]: the policy's, what there is to gain measured from the worst way; a mandatory message takes the first
    of the best."""
    if ask.purpose == Purpose.MANDATORY:
        return np.asarray(np.arange(len(values)) == int(np.argmax(values)), dtype=np.float64)
    return decider.policy.propensities(values, float(values.min()))


def _why(candidates: tuple[Candidate, ...], drawn: int) -> Reason:
    top = max(candidate.value for candidate in candidates)
    if candidates[drawn].value < top:
        return Reason("explored", f"value {candidates[drawn].value:.6g}; the best way has {top:.6g}")
    return Reason("best_way", f"value {top:.6g}, the highest of {len(candidates)} ways")


def _nothing(ways: _Ways) -> Reason:
    """Why the message has no way."""
    if any(item.subject == "product" for item in ways.removed):
        return Reason("no_product", "the product may not be offered to this customer; see removed")
    if any(item.subject == "action" for item in ways.removed):
        return Reason("no_content", "no channel that may be used can carry the message; see removed")
    return Reason("no_channel", "no outbound channel is allowed, consented to and in the catalogue; see removed")
