"""A given message finds its way, under every rule that protects the customer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import chisquare

from features.catalog import Content
from serving.content import Contents
from serving.decide import Decider
from serving.decision import Ask, Decision, Message
from serving.history import Past, RecordedPast
from serving.policy import Policy
from serving.route import decision_for

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

CARD = Message(product_id="card")
NOTICE = Content("notice", "en", "Dear {{ first_name }}, your statement is ready", plain="Your statement is ready")


def send(decider: Decider, ask: Ask, decision_id: str = "1" * 32) -> Decision:
    assert ask.message is not None
    return decision_for(decider, ask, decision_id)


def with_notice(world: World, *more: Content, **changes: object) -> Decider:
    catalog = replace(world.bank.catalog, contents=(*world.bank.catalog.contents, NOTICE, *more))
    return world.with_models(catalog=catalog, contents=Contents(catalog), **changes)


def way(decision: Decision) -> tuple[str | None, tuple[str, ...]]:
    return decision.action and decision.action.channel, decision.fallback_channels


@pytest.mark.parametrize("purpose", ["service", "mandatory"])
def test_a_message_takes_the_channel_that_works_best_and_the_others_follow(world: World, purpose: str) -> None:
    decider = world.with_models(channels=(0.2, 0.6, 0.9), policy=Policy(0, 0))
    decision = send(decider, world.ask(purpose=purpose, message=CARD))
    assert way(decision) == ("email", ("push",))
    assert [hop.channel for hop in decision.chain] == ["email", "push"]
    assert decision.value == 0.6


def test_a_worth_weighs_the_channel_against_its_cost(world: World) -> None:
    decider = world.with_models(channels=(0.50, 0.51, 0.1), policy=Policy(0, 0))
    dear, cheap = (send(decider, world.ask(purpose="service", message=replace(CARD, worth=w))) for w in (100.0, 1.0))
    assert way(dear)[0] == "email"
    assert dear.value == pytest.approx(0.51 * 100 - 0.2)
    assert way(cheap)[0] == "push"


@pytest.mark.parametrize("purpose", ["marketing", "service", "mandatory"])
def test_consent_holds_for_every_purpose_and_no_channel_is_said_plainly(world: World, purpose: str) -> None:
    decider = world.with_models(channels=(0.01, 1.0, 0.1))
    for number in range(20):
        decision = send(decider, world.ask("refuser", purpose=purpose, message=CARD), f"{number:032x}")
        assert way(decision) == ("push", ())
    nobody = send(decider, world.ask("silent", purpose=purpose, message=CARD))
    assert (nobody.action, nobody.propensity, nobody.reasons[0].rule) == (None, 1.0, "no_channel")
    assert {removed.rule for removed in nobody.removed} == {"no_consent", "inbound_only"}


def test_a_held_product_may_be_written_about_but_not_offered(world: World) -> None:
    decider = world.with_models()
    assert send(decider, world.ask("held", purpose="service", message=CARD)).action is not None
    offered = send(decider, world.ask("held", purpose="marketing", message=CARD))
    assert (offered.action, offered.reasons[0].rule) == (None, "no_product")
    assert ("card", "held") in {(removed.id, removed.rule) for removed in offered.removed}


def test_a_service_message_ignores_what_other_products_are_removed_for(world: World) -> None:
    decision = send(world.with_models(), world.ask("held", purpose="service", message=CARD))
    assert {removed.subject for removed in decision.removed} == {"channel"}


@pytest.mark.parametrize("target", [{}, {"channel": "push"}, {"product": "card"}])
def test_only_marketing_is_stopped_by_caps(world: World, target: dict[str, str]) -> None:
    cap = {"id": "once", "kind": "cap", "limit": 1, "days": 30, **target}
    first = send(world.with_models(), world.ask(purpose="marketing", message=CARD, channels=("push",)))
    assert first.contact is not None
    catalog = replace(world.bank.catalog, policies=(cap,))
    decider = world.with_models(catalog=catalog, history=RecordedPast(Past((first.contact,), ())))
    capped = send(decider, world.ask(purpose="marketing", message=CARD, channels=("push",)))
    assert capped.action is None
    assert "once" in {removed.rule for removed in capped.removed}
    for purpose in ("service", "mandatory"):
        sent = send(decider, world.ask(purpose=purpose, message=CARD))
        assert sent.action is not None
        assert sent.contact is not None
        assert (sent.contact.purpose, sent.caps) == (purpose, ())


def test_quiet_hours_put_a_service_message_off(world: World) -> None:
    quiet = tuple(replace(channel, quiet_hours=("20:00", "08:00")) for channel in world.bank.catalog.channels)
    decider = world.with_models(catalog=replace(world.bank.catalog, channels=quiet))
    night = datetime(2024, 6, 1, 22, tzinfo=UTC)
    decision = send(decider, world.ask(as_of=night, purpose="service", message=CARD))
    assert decision.send_at == datetime(2024, 6, 2, 6, tzinfo=UTC)  # 08:00 in Berlin


def test_a_content_about_no_product_is_sent_and_falls_back_to_its_plain_variant(world: World) -> None:
    decider = with_notice(world, policy=Policy(0, 0))
    message = Message(content_id="notice")
    anna, other = (send(decider, world.ask(who, purpose="mandatory", message=message)) for who in ("anna", "refuser"))
    assert anna.action is not None
    assert (anna.action.product_id, anna.action.text) == (None, "Dear Anna, your statement is ready")
    assert other.action is not None
    assert other.action.text == "Your statement is ready"
    assert anna.contact is not None
    assert anna.contact.product_id is None


def test_a_content_of_one_channel_goes_by_that_channel_only(world: World) -> None:
    decider = with_notice(world, Content("letter", "en", "A letter", None, "email"))
    decision = send(decider, world.ask(purpose="mandatory", message=Message(content_id="letter")))
    assert way(decision) == ("email", ())


@pytest.mark.parametrize(
    ("message", "purpose", "rule"),
    [
        (Message(product_id="yacht"), "service", "unknown_product"),
        (Message(content_id="poem"), "service", "unknown_content"),
        (Message("card", "named"), "service", "content_of_another_product"),
        (Message(content_id="notice"), "marketing", "no_product"),
    ],
)
def test_what_is_no_message_of_the_catalogue_is_named(world: World, message: Message, purpose: str, rule: str) -> None:
    decision = send(with_notice(world), world.ask(purpose=purpose, message=message))
    assert (decision.action, decision.reasons[0].rule) == (None, rule)


def test_an_unknown_customer_is_not_written_to(world: World) -> None:
    decision = send(world.with_models(), world.ask("stranger", purpose="mandatory", message=CARD))
    assert (decision.action, decision.reasons[0].rule) == (None, "unknown_customer")


def test_mandatory_messages_are_never_explored_with(world: World) -> None:
    decider = world.with_models(channels=(0.5, 0.5, 0.5), policy=Policy(1.0, 1.0))
    made = [send(decider, world.ask(purpose="mandatory", message=CARD), f"{n:032x}") for n in range(50)]
    assert {(way(decision)[0], decision.propensity) for decision in made} == {("push", 1.0)}


def test_ways_are_drawn_as_often_as_their_propensity_says(world: World) -> None:
    decider = world.with_models(channels=(0.3, 0.6, 0.1), policy=Policy(1.0, 0.3))
    made = [send(decider, world.ask(purpose="service", message=CARD), f"{n:032x}") for n in range(2_000)]
    first = made[0]
    assert sum(first.propensities) == pytest.approx(1)
    order = [candidate.action for candidate in first.candidates]
    seen = np.bincount([order.index(decision.action) for decision in made], minlength=len(order))
    assert chisquare(seen, np.array(first.propensities) * len(made)).pvalue > 1e-3
    assert all(decision.propensity == first.propensities[order.index(decision.action)] for decision in made)
