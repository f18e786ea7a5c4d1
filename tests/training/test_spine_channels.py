"""Which rows channel-choice learns from, and what counts as "the channel worked"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from training.labels import DAY, ModelNotPossible, messages
from training.spine_channels import channel_source, channel_spine

Days = Callable[[float], int]
APP, WEB, SMS = 0, 1, 2


def send(world: Any, customer: str, day: float, channel: str, message: str, outcome: str | None = "delivered") -> None:
    common = {"channel": channel, "message_id": message, "decision_id": f"of {message}", "purpose": "marketing"}
    world.event(customer, day, "sent", **common)
    if outcome:
        world.event(customer, day + 0.1, outcome, **common)


@pytest.fixture
def campaign(world: Any) -> Any:
    """anna answers the app message, not the SMS; ben's SMS fails; everybody gets a service message."""
    world.knows(anna=0, ben=0)
    send(world, "anna", 1, "app", "m1")
    send(world, "anna", 2, "sms", "m2")
    send(world, "ben", 3, "sms", "m3", outcome="failed")
    send(world, "ben", 4, "app", "m4")
    world.event("anna", 1.5, "opened", channel="app", message_id="m1")
    world.event("anna", 1.6, "clicked", channel="app", message_id="m1")
    world.event("ben", 4.5, "opened", channel="app", message_id="m4")
    world.event("ben", 5, "sent", channel="web", message_id="s1", purpose="service")
    world.event("ben", 5, "delivered", channel="web", message_id="s1", purpose="service")
    return world


def test_each_arrived_message_is_a_row_just_before_it_was_sent(campaign: Any, day: Days) -> None:
    spine = channel_spine(campaign.bank, "messages", day(50), 7 * DAY)
    assert channel_source(campaign.bank) == "messages"
    assert list(zip(spine.customer_id, spine.as_of, strict=True)) == [
        ("anna", day(1) - 1),
        ("anna", day(2) - 1),
        ("ben", day(4) - 1),
    ]
    assert spine.offered.argmax(axis=1).tolist() == [APP, SMS, APP]
    assert spine.offered.sum(axis=1).tolist() == [1, 1, 1]
    assert spine.outside.all()


def test_a_click_is_an_answer_and_an_opening_is_not(campaign: Any, day: Days) -> None:
    spine = channel_spine(campaign.bank, "messages", day(50), 7 * DAY)
    assert spine.taken.any(axis=1).tolist() == [True, False, False]


def test_an_answer_after_the_window_does_not_count(campaign: Any, day: Days) -> None:
    campaign.event("anna", 9.2, "replied", channel="sms", message_id="m2")
    spine = channel_spine(campaign.bank, "messages", day(50), 7 * DAY)
    assert spine.taken.any(axis=1).tolist() == [True, False, False]
    assert channel_spine(campaign.bank, "messages", day(50), 8 * DAY).taken.any(axis=1).tolist() == [True, True, False]


def test_a_take_up_with_only_a_decision_id_answers_that_decisions_messages(campaign: Any, day: Days) -> None:
    campaign.event("ben", 6, "converted", product_id="loan", decision_id="of m4")
    assert channel_spine(campaign.bank, "messages", day(50), 7 * DAY).taken[2].tolist() == [True, False, False]


def test_a_window_still_open_is_left_out_and_counted(campaign: Any, day: Days) -> None:
    spine = channel_spine(campaign.bank, "messages", day(9.5), 7 * DAY)
    assert len(spine) == 2
    assert spine.left_out == {"the response window was still open": 1}


def test_sent_counts_only_on_a_channel_that_never_reports(campaign: Any) -> None:
    send(campaign, "anna", 10, "web", "m9", outcome=None)
    send(campaign, "anna", 11, "sms", "m10", outcome=None)  # SMS reports, so this one did not arrive
    assert messages(campaign.bank)["message_id"].tolist() == ["m1", "m2", "m4", "m9"]


@pytest.fixture
def visits(world: Any) -> Any:
    world.knows(anna=0, ben=0)
    world.event("anna", 1, "visited", channel="web").event("anna", 2, "called", channel="app")
    world.event("anna", 2, "visited", channel="web").event("anna", 6, "visited", channel="web")
    return world.event("ben", 3, "visited", channel="web")


def test_each_touch_asks_by_which_channel_the_next_one_comes(visits: Any, day: Days) -> None:
    assert channel_source(visits.bank) == "touches"
    spine = channel_spine(visits.bank, "touches", day(50), 7 * DAY)
    assert list(zip(spine.customer_id, spine.as_of, spine.closes, strict=True)) == [
        ("anna", day(1), day(2)),
        ("anna", day(2), day(6)),
    ]
    assert spine.taken.tolist() == [[True, True, False], [False, True, False]]
    assert spine.previous.tolist() == [WEB, WEB]
    assert not spine.outside.any()
    assert spine.left_out == {"no touch followed": 2}


def test_an_entity_asks_for_the_next_touch_strictly_after_its_moment(visits: Any, day: Days, asked: Any) -> None:
    rows = asked(("anna", 2), ("anna", 0.5), ("ben", 3), ("nobody", 1))
    spine = channel_spine(visits.bank, "touches", day(50), 7 * DAY, rows)
    assert list(zip(spine.as_of, spine.closes, strict=True)) == [(day(2), day(6)), (day(0.5), day(1))]
    assert spine.previous.tolist() == [WEB, -1]
    assert spine.left_out == {"no touch followed": 2}


def test_one_channel_is_no_choice(world: Any) -> None:
    world.knows(anna=0).event("anna", 1, "visited", channel="web").event("anna", 2, "visited", channel="web")
    with pytest.raises(ModelNotPossible, match="customers came by 1"):
        channel_source(world.bank)


def test_decisions_without_delivery_reports_claim_nothing_about_channels(world: Any) -> None:
    world.knows(anna=0)
    for number, channel in enumerate(("app", "sms")):
        world.event("anna", number, "decided", channel=channel, product_id="card", decision_id=f"d{number}")
        world.event("anna", number + 0.5, "converted", channel=channel, product_id="card", decision_id=f"d{number}")
    with pytest.raises(ModelNotPossible, match="messages arrived on 0"):
        channel_source(world.bank)


def test_the_previous_channel_is_that_of_the_newest_touch(visits: Any, day: Days) -> None:
    visits.knows(cleo=0)
    for days, channel in ((1, "web"), (2, "app"), (3, "web")):
        visits.event("cleo", days, "visited", channel=channel)
    spine = channel_spine(visits.bank, "touches", day(50), 7 * DAY)
    assert spine.previous[spine.customer_id == "cleo"].tolist() == [WEB, APP]
