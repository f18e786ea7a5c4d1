"""What a journey asks for next: one hop at a time, at the time cleared for it, until it arrived or may not go on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.columns import Kind
from serving.router.journey import Done, Leg, Route, Send, Wait, next_step

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LEGS = (
    Leg("push", "short", "Hi", NOON, NOON + 2 * HOUR),
    Leg("sms", "short", "Hi", NOON + 3 * HOUR, NOON + 5 * HOUR),
    Leg("email", "long", "Dear", NOON + 5 * HOUR, NOON + 9 * HOUR),
)
ROUTE = Route("d", "anna", "marketing", "card", NOON, LEGS)


def word(kind: str, place: int, at: datetime = NOON) -> dict[str, Any]:
    return ROUTE.event(place, Kind(kind), at)


def said(kind: str, channel: str | None, purpose: str | None = None, at: datetime = NOON + HOUR) -> dict[str, Any]:
    """Something that the customer did on no message; what does not apply is left out, as timelines do."""
    event = {"kind": kind, "channel": channel, "purpose": purpose, "event_timestamp": at.isoformat()}
    return {name: value for name, value in event.items() if value is not None}


@pytest.mark.parametrize(
    ("timeline", "hours", "step"),
    [
        ([], -1, Wait(NOON)),
        ([], 0, Send(0)),
        ([("sent", 0)], 1, Wait(NOON + 2 * HOUR)),
        ([("sent", 0)], 2, Wait(NOON + 3 * HOUR)),  # not heard of by its deadline; the next has its own time
        ([("sent", 0)], 3, Send(1)),
        ([("sent", 0), ("failed", 0)], 1, Wait(NOON + 3 * HOUR)),  # never earlier than cleared
        ([("sent", 0), ("failed", 0)], 3, Send(1)),
        ([("sent", 0), ("failed", 0), ("sent", 1), ("failed", 1)], 5, Send(2)),
        ([("sent", 0), ("failed", 0), ("sent", 1), ("failed", 1), ("sent", 2), ("failed", 2)], 6, Done("failed")),
        ([("sent", 0), ("delivered", 0)], 1, Done("arrived")),
        ([("opened", 0)], 1, Done("arrived")),
        ([("sent", 0), ("sent", 1), ("delivered", 0)], 4, Done("arrived")),  # the first arrived late
        ([], 2, Wait(NOON + 3 * HOUR)),  # the router was away: the first hop is not made up for
        ([], 9, Done("late")),
    ],
)
def test_the_next_step_follows_from_the_timeline_and_the_time(
    timeline: list[tuple[str, int]], hours: int, step: object
) -> None:
    assert next_step(ROUTE, [word(*one) for one in timeline], NOON + hours * HOUR) == step


def test_no_contact_is_over_at_once() -> None:
    assert next_step(Route("d", "anna", "marketing", None, NOON, ()), [], NOON) == Done("no_contact")


@pytest.mark.parametrize("channel", ["push", None])
def test_who_refuses_after_the_decision_is_not_written_to_on_that_channel(channel: str | None) -> None:
    step = next_step(ROUTE, [said("opted_out", channel)], NOON + HOUR)
    assert step == (Done("refused") if channel is None else Wait(NOON + 3 * HOUR))


def test_consent_given_again_counts_and_a_refusal_of_another_purpose_does_not() -> None:
    out, back = said("opted_out", None), said("opted_in", "push", at=NOON + HOUR * 1.5)
    assert next_step(ROUTE, [back, out], NOON + HOUR) == Send(0)
    assert next_step(ROUTE, [said("opted_out", None, "service")], NOON) == Send(0)


def test_a_duty_is_sent_to_those_who_refuse_everything() -> None:
    duty = Route("d", "anna", "mandatory", None, NOON, LEGS)
    assert next_step(duty, [said("opted_out", None)], NOON) == Send(0)


def test_a_product_taken_up_meanwhile_is_not_offered_further() -> None:
    bought = {**said("converted", "branch"), "product_id": "card"}
    assert next_step(ROUTE, [bought], NOON) == Done("converted")
    assert next_step(ROUTE, [{**bought, "product_id": "loan"}], NOON) == Send(0)


def test_an_answer_of_the_service_becomes_a_route() -> None:
    hop = {"channel": "push", "send_at": "2024-06-01T12:00:00Z", "deadline": "2024-06-01T14:00:00Z"}
    answer = {
        "decision_id": "d",
        "customer_id": "anna",
        "purpose": "marketing",
        "as_of": "2024-06-01T12:00:00Z",
        "action": {"product_id": "card"},
        "chain": [{**hop, "content_id": "short", "text": "Hi"}],
    }
    assert Route.of(answer) == Route("d", "anna", "marketing", "card", NOON, LEGS[:1])
    assert Route.of({**answer, "action": None, "chain": []}).legs == ()


def test_what_follows_a_decision_never_lies_before_it() -> None:
    assert word("sent", 0, NOON - HOUR)["event_timestamp"] == NOON.isoformat()


@given(st.data())
def test_never_two_hops_at_once_never_twice_never_after_arrival_and_never_outside_its_time(data: st.DataObject) -> None:
    """Any course of time and of providers' words: the journey is walked as a router would."""
    timeline: list[dict[str, Any]] = []
    sent: list[int] = []
    now = NOON - HOUR
    for _ in range(40):
        step = next_step(ROUTE, data.draw(st.permutations(timeline)), now)
        if isinstance(step, Send):
            leg = LEGS[step.place]
            assert step.place not in sent
            assert leg.send_at <= now < leg.deadline
            for earlier in sent:
                assert now >= LEGS[earlier].deadline or "failed" in kinds(timeline, earlier)
                assert "delivered" not in kinds(timeline, earlier)
            sent.append(step.place)
            timeline.append(word("sent", step.place, now))
        elif isinstance(step, Done):
            assert step.outcome in ("arrived", "failed", "late")
            return
        else:
            assert step.until > now
        for place in sent:
            heard = data.draw(st.sampled_from([None, None, "failed", "delivered"]))
            if heard and not {"failed", "delivered"} & kinds(timeline, place):
                timeline.append(word(heard, place, now))
        now += data.draw(st.sampled_from([timedelta(0), HOUR / 2, HOUR, 3 * HOUR]))


def kinds(timeline: Sequence[dict[str, Any]], place: int) -> set[str]:
    return {event["kind"] for event in timeline if event["message_id"] == ROUTE.message_id(place)}
