"""Reading a randomised log of contents: what counts for whom, what each decision earned, and what is no such log."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from features.catalog import Catalog, Channel, Content, Product
from features.importing import Bank
from training.content.content_log import ContentLog, content_log
from training.content.take_up_worth import TAKE_UPS
from training.labels import DAY, ModelNotPossible, last_fact

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import World
else:
    World = Any

CONTENTS = (Content("warm", "en", "Warm"), Content("plain", "en", "Plain", product_id="card"))


def with_contents(bank: Bank, margin: float | None = None) -> Bank:
    products = (Product("card", "Card", holdable=True, margin=margin), Product("loan", "Loan"))
    channels = (Channel("app", "App", "both"), Channel("web", "Web", "both"), Channel("sms", "SMS", "outbound", 2.0))
    return replace(bank, catalog=Catalog("EUR", "UTC", products, channels, CONTENTS))


def filled(world: World, each: int = 40) -> World:
    """So many decisions of each arm on the first days, which make it a log; every one of a content is answered."""
    for number in range(each):
        for arm in ("warm", "plain", "none"):
            customer, name = f"{arm}{number}", f"d {arm} {number}"
            world.knows(**{customer: 0.0})
            contact = {} if arm == "none" else {"channel": "sms", "content_id": arm}
            world.event(customer, 1.0, "decided", decision_id=name, propensity=1 / 3, **contact)
            if arm != "none":
                world.event(customer, 2.0, "converted", decision_id=name, product_id="card")
    return world.event("none0", 60.0, "visited", channel="web")


def read(world: World, margin: float | None = None, horizon: float | None = None, **options: Any) -> ContentLog:
    bank = with_contents(world.bank, margin)
    return content_log(bank, last_fact(bank), None if horizon is None else int(horizon * DAY), 10_000, **options)


def rewards(log: ContentLog) -> dict[tuple[str, float], float]:
    """By customer and day."""
    days = (log.at - log.at.min()) / DAY + 1.0
    return {(who, float(day)): float(one) for who, day, one in zip(log.customer_id, days, log.reward, strict=True)}


def test_each_arm_earns_the_margins_of_what_was_taken_up_less_the_cost_of_its_message(world: World) -> None:
    log = read(filled(world), margin=30.0)
    assert (log.unit, log.named, len(log)) == ("EUR", 1.0, 120)
    assert log.reward[log.arm == 0].tolist() == [28.0] * 40
    assert log.reward[log.silent].tolist() == [0.0] * 40
    assert log.took.sum() == 80


def test_without_margins_or_values_take_ups_are_counted_and_cost_nothing(world: World) -> None:
    log = read(filled(world))
    assert log.unit == TAKE_UPS
    assert log.reward[log.arm == 1].tolist() == [1.0] * 40


def test_a_value_counts_where_the_product_has_no_margin(world: World) -> None:
    filled(world).event("none0", 3.0, "converted", value=12.5)
    filled(world, 0).event("none1", 3.0, "converted", value=12.5, product_id="card")
    log = read(world, margin=30.0)
    assert rewards(log)["none0", 1.0] == 12.5
    assert rewards(log)["none1", 1.0] == 30.0


def test_a_take_up_that_names_nothing_counts_for_the_latest_decision_in_every_arm(world: World) -> None:
    filled(world).knows(eve=0.0)
    world.event("eve", 5.0, "decided", decision_id="first", propensity=0.5, channel="sms", content_id="warm")
    world.event("eve", 15.0, "decided", decision_id="second", propensity=0.5)
    world.event("eve", 20.0, "converted", value=7.0)
    log = read(world)
    assert rewards(log)["eve", 5.0] == -2.0
    assert rewards(log)["eve", 15.0] == 7.0
    assert log.named == pytest.approx(80 / 81)


def test_a_take_up_that_names_a_decision_counts_for_it_alone_also_by_its_message(world: World) -> None:
    filled(world).knows(eve=0.0)
    world.event("eve", 5.0, "decided", decision_id="first", propensity=0.5, channel="sms", content_id="warm")
    world.event("eve", 5.1, "sent", decision_id="first", message_id="m", channel="sms")
    world.event("eve", 15.0, "decided", decision_id="second", propensity=0.5)
    world.event("eve", 20.0, "converted", value=7.0, message_id="m")
    log = read(world)
    assert rewards(log)["eve", 5.0] == 5.0
    assert rewards(log)["eve", 15.0] == 0.0


def test_what_comes_after_the_window_counts_for_nobody(world: World) -> None:
    filled(world).knows(eve=0.0)
    world.event("eve", 5.0, "decided", decision_id="d", propensity=0.5, channel="sms", content_id="warm")
    world.event("eve", 16.0, "converted", value=7.0, decision_id="d")
    assert rewards(read(world, horizon=10.0))["eve", 5.0] == -2.0
    assert rewards(read(world, horizon=11.0))["eve", 5.0] == 5.0


def test_a_message_that_never_left_costs_nothing_and_a_failed_one_stays_in(world: World) -> None:
    filled(world).knows(eve=0.0, ann=0.0, bob=0.0)
    for who in ("eve", "ann", "bob"):
        world.event(who, 5.0, "decided", decision_id=who, propensity=0.5, channel="sms", content_id="warm")
    world.event("eve", 5.1, "sent", decision_id="eve", channel="sms")
    world.event("bob", 5.1, "sent", decision_id="bob", channel="sms")
    world.event("bob", 5.2, "failed", decision_id="bob", channel="sms")
    found = rewards(read(world, margin=30.0))
    assert (found["eve", 5.0], found["ann", 5.0], found["bob", 5.0]) == (-2.0, 0.0, -2.0)


def test_decisions_that_cannot_teach_are_left_out_and_counted(world: World) -> None:
    filled(world).knows(eve=0.0)
    world.event("eve", 5.0, "decided", decision_id="a", channel="sms", content_id="warm")
    world.event("eve", 6.0, "decided", decision_id="b", propensity=1.0)
    world.event("eve", 7.0, "decided", decision_id="c", propensity=0.5, channel="sms")
    world.event("eve", 50.0, "decided", decision_id="d", propensity=0.5)
    world.event("eve", 8.0, "decided", decision_id="e", propensity=0.5, purpose="service", channel="sms")
    log = read(world)
    assert len(log) == 120
    assert [count for count in log.left_out.values() if count] == [1, 1, 1, 1]


def test_a_short_log_gets_a_shorter_window_and_keeps_its_decisions(world: World) -> None:
    filled(world)
    world.timeline = [event for event in world.timeline if event["day"] <= 2.0]
    log = read(world)
    assert (len(log), log.horizon) == (120, 1 * DAY)
    assert log.took.sum() == 80


def test_entities_say_from_which_decision_on_is_learned(world: World, asked: Callable[..., pd.DataFrame]) -> None:
    filled(world).knows(eve=0.0)
    for day in (5.0, 15.0, 25.0):
        world.event("eve", day, "decided", decision_id=f"{day}", propensity=0.5, channel="sms", content_id="warm")
    others = [(f"{arm}{number}", 0.5) for arm in ("warm", "plain", "none") for number in range(35)]
    log = read(world, entities=asked(("eve", 15.0), ("eve", 14.0), ("eve", 26.0), *others))
    assert len(log) == 35 * 3 + 1
    days = (log.at[log.customer_id == "eve"] - log.at.min()) / DAY + 1.0
    np.testing.assert_allclose(days, [15.0])


@pytest.mark.parametrize(
    ("drop", "reason"),
    [("propensity", "propensity below 1"), ("none", "not to contact"), ("content", "content of the catalogue"),
     ("converted", "after which something was taken up")],
)  # fmt: skip
def test_a_log_that_is_not_one_is_refused_with_what_is_missing(world: World, drop: str, reason: str) -> None:
    filled(world)
    kept = []
    for event in world.timeline:
        silent = event["kind"] == "decided" and "content_id" not in event
        if (drop == "none" and silent) or (drop == "converted" and event["kind"] == "converted"):
            continue
        gone = {"propensity": "propensity", "content": "content_id"}.get(drop)
        kept.append({name: value for name, value in event.items() if name != gone})
    world.timeline = kept
    with pytest.raises(ModelNotPossible, match=reason):
        read(world)


def test_a_catalogue_without_contents_has_nothing_to_choose(world: World) -> None:
    bank = filled(world).bank
    with pytest.raises(ModelNotPossible, match="contents"):
        content_log(bank, last_fact(bank), None, 100)


def test_a_sample_is_drawn_by_hash_and_counted(world: World) -> None:
    bank = with_contents(filled(world, 80).bank)
    log = content_log(bank, last_fact(bank), None, 200)
    assert 100 < len(log) <= 200
    assert log.left_out["a sample of 200 decisions is enough"] == 240 - len(log)
