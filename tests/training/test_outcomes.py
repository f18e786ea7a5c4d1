"""What a served decision teaches: yes, no, or nothing at all; and what a late event changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from features.errors import InputError
from training.attribution import LAST_TOUCH
from training.labels import DAY, cut
from training.outcomes import FAILED, NEVER_SENT, OPEN, outcomes
from training.plan import CHANNEL_CHOICE, NEXT_BEST_PRODUCT, Order, make_plan
from training.provenance import SCHEMA, label_table
from training.spine import product_spine
from training.spine_channels import channel_spine

Days = Callable[[float], int]
OFFER = {"purpose": "marketing", "channel": "sms"}


def offer(world: Any, customer: str, day: float, decision: str, *receipts: str, product: str = "loan") -> None:
    """A served decision, and receipts an hour apart after it."""
    world.serves(customer, day, "decided", product_id=product, decision_id=decision, propensity=0.25, **OFFER)
    for hour, kind in enumerate(receipts, start=1):
        world.serves(customer, day + hour / 24, kind, channel="sms", decision_id=decision, message_id=f"m{decision}")


def labels(world: Any, end: int) -> dict[str, Any]:
    """decision_id → yes, no or why it is no row, as far as it is known at `end`."""
    found = outcomes(cut(world.bank, end), end, 7 * DAY).offers
    said = [
        why if why is not None else "yes" if yes else "no"
        for why, yes in zip(found["left_out"].astype(object).where(found["left_out"].notna(), None), found["label"],
                            strict=True)
    ]  # fmt: skip
    return dict(zip(found["decision_id"], said, strict=True))


@pytest.fixture
def people(world: Any) -> Any:
    return world.knows(anna=0, ben=0, cleo=0)


def test_an_offer_is_a_row_when_its_window_has_closed_and_a_no_where_nothing_was_taken(people: Any, day: Days) -> None:
    offer(people, "anna", 10, "d1", "sent", "delivered")
    offer(people, "ben", 10, "d2", "sent", "delivered")
    offer(people, "cleo", 14, "d3", "sent", "delivered")
    people.serves("anna", 12, "converted", product_id="loan", decision_id="d1")
    assert labels(people, day(20)) == {"d1": "yes", "d2": "no", "d3": OPEN}
    assert labels(people, day(21)) == {"d1": "yes", "d2": "no", "d3": "no"}


def test_what_never_reached_the_customer_is_no_refusal(people: Any, day: Days) -> None:
    offer(people, "anna", 1, "arrived", "sent", "delivered")
    offer(people, "anna", 2, "bounced", "sent", "failed")
    offer(people, "anna", 3, "suppressed")
    offer(people, "anna", 4, "lost", "sent")
    offer(people, "anna", 5, "second_try", "failed", "sent", "delivered")
    offer(people, "anna", 6, "seen", "sent", "clicked")
    offer(people, "anna", 7, "refused", "failed")
    offer(people, "ben", 20, "later", "sent", "delivered")
    assert labels(people, day(30)) == {
        "arrived": "no",
        "bounced": FAILED,
        "suppressed": NEVER_SENT,
        "lost": FAILED,
        "second_try": "no",
        "seen": "no",
        "refused": FAILED,
        "later": "no",
    }


def test_without_receipts_of_a_channel_its_decisions_are_taken_at_their_word(people: Any, day: Days) -> None:
    offer(people, "anna", 1, "d1")
    offer(people, "ben", 2, "d2")
    people.serves("anna", 3, "sent", channel="app", message_id="other", purpose="service")
    assert labels(people, day(30)) == {"d1": "no", "d2": "no"}
    people.event("anna", 1, "sent", channel="sms", message_id="of another system")  # the bank's, not the ledger's
    assert labels(people, day(30)) == {"d1": "no", "d2": "no"}
    people.serves("cleo", 7, "sent", channel="sms", message_id="m", purpose="service")  # before both windows closed
    assert labels(people, day(30)) == {"d1": NEVER_SENT, "d2": NEVER_SENT}


def test_receipts_that_begin_later_condemn_no_earlier_decision(people: Any, day: Days) -> None:
    offer(people, "anna", 1, "d1")
    before = labels(people, day(8))
    offer(people, "ben", 9, "d2", "sent", "delivered")
    assert labels(people, day(30))["d1"] == before["d1"] == "no"


def test_every_product_has_its_own_window(people: Any, day: Days) -> None:
    people.windows["loan"] = 30.0
    offer(people, "anna", 10, "d1", "sent", "delivered", product="card")
    offer(people, "anna", 10, "d2", "sent", "delivered", product="loan")
    people.serves("anna", 20, "converted", product_id="card", decision_id="d1")
    people.serves("anna", 20, "converted", product_id="loan", decision_id="d2")
    assert labels(people, day(39)) == {"d1": "no", "d2": OPEN}
    assert labels(people, day(40)) == {"d1": "no", "d2": "yes"}


def test_a_conversion_without_a_product_did_what_its_decision_was_for(people: Any, day: Days) -> None:
    offer(people, "anna", 10, "d1", "sent", "delivered")
    people.serves("anna", 12, "converted", decision_id="d1")
    assert labels(people, day(30)) == {"d1": "yes"}


def test_a_conversion_may_name_only_its_message(people: Any, day: Days) -> None:
    offer(people, "anna", 10, "d1", "sent", "delivered")
    offer(people, "anna", 11, "d2", "sent", "delivered")
    people.serves("anna", 12, "converted", product_id="loan", message_id="md1")
    assert labels(people, day(30)) == {"d1": "yes", "d2": "no"}


def kept(world: Any, end: int) -> dict[str, dict[str, Any]]:
    table = label_table(outcomes(world.bank, end, 7 * DAY), world.bank.catalog.product_ids)
    assert table.schema == SCHEMA
    return {row["decision_id"]: row for row in table.to_pylist()}


def test_a_late_positive_corrects_a_no_and_the_table_says_since_when(people: Any, day: Days) -> None:
    offer(people, "anna", 10, "d1", "sent", "delivered")
    offer(people, "ben", 10, "d2", "sent", "delivered")
    people.serves("ben", 12, "converted", product_id="loan", decision_id="d2")
    people.serves("cleo", 30, "visited", channel="web")
    before = kept(people, day(30))["d1"]
    assert (before["label"], before["known_since"], before["corrected"]) == (False, stamp(day(17)), False)
    people.serves("anna", 16, "converted", known=40, product_id="loan", decision_id="d1")
    after = kept(people, day(30))
    late = after["d1"]
    assert (late["label"], late["taken_at"], late["known_since"]) == (True, stamp(day(16)), stamp(day(40)))
    assert (late["corrected"], late["evidence_event_id"], late["attribution"]) == (True, "s8", LAST_TOUCH)
    in_time = after["d2"]
    assert (in_time["label"], in_time["known_since"], in_time["corrected"]) == (True, stamp(day(12)), False)
    assert late["propensity"] == 0.25


def test_the_label_table_lists_what_is_no_row_with_the_reason(people: Any, day: Days) -> None:
    offer(people, "anna", 1, "d1", "sent", "failed")
    offer(people, "anna", 28, "d2", "sent", "delivered")
    people.serves("anna", 29, "converted", product_id="loan", decision_id="d2")
    lines = kept(people, day(30))
    assert [(lines[name]["label"], lines[name]["left_out"]) for name in ("d1", "d2")] == [(None, FAILED), (None, OPEN)]
    assert lines["d2"]["evidence_event_id"] is None
    assert lines["d2"]["known_since"] is None


def test_a_take_up_that_holdings_tell_is_a_yes_without_an_event(people: Any, day: Days) -> None:
    offer(people, "anna", 10, "d1", "sent", "delivered", product="card")
    people.opens("anna", 12, "card")
    line = kept(people, day(30))["d1"]
    assert (line["label"], line["taken_at"], line["evidence_event_id"]) == (True, stamp(day(12)), None)


def test_served_decisions_join_the_occasions_of_a_bank(people: Any, day: Days) -> None:
    people.event("cleo", 1, "decided", product_id="card", decision_id="of the bank", **OFFER)
    people.event("ben", 5, "converted", product_id="card")
    before = product_spine(people.bank, "occasions", day(5), 2 * DAY)
    offer(people, "anna", 10, "d1", "sent", "delivered")
    people.serves("anna", 12, "converted", product_id="loan", decision_id="d1")
    plan, known = make_plan(Order(NEXT_BEST_PRODUCT, horizon_days=2), people.bank)
    spine = plan.spine(known, plan.end)
    served = spine.take(spine.sort == "decision")
    assert list(zip(served.customer_id, served.as_of, strict=True)) == [("anna", day(10) - 1)]
    assert served.offered.tolist() == served.taken.tolist() == [[False, True]]
    snapshots, earlier = (one.take(one.sort == "snapshot") for one in (spine, before))
    assert snapshots.as_of.tolist() == earlier.as_of.tolist(), "after the tables end, nothing tells of nothing"
    found = plan.outcomes(known, plan.end)
    assert found is not None
    assert found.offers["decision_id"].tolist() == ["d1"]


def test_decisions_of_the_banks_own_log_stay_out_of_its_occasions(people: Any, day: Days) -> None:
    people.event("anna", 10, "decided", product_id="loan", decision_id="d1", **OFFER)
    people.event("anna", 12, "converted", product_id="loan", decision_id="d1")
    people.event("ben", 14, "converted", product_id="loan")
    plan, known = make_plan(Order(NEXT_BEST_PRODUCT), people.bank)
    assert "decision" not in plan.spine(known, plan.end).sort
    assert plan.outcomes(known, plan.end) is None


def test_a_later_fact_changes_no_row_that_was_known(people: Any, day: Days) -> None:
    for number in range(8):
        offer(people, "anna", 2 * number, f"d{number}", "sent", "delivered")
        people.serves("anna", 2 * number + 1, "converted", product_id="loan")
    people.event("ben", 3, "converted", product_id="card")
    before = labels(people, day(20))
    people.serves("anna", 20.5, "converted", product_id="loan").opens("ben", 21, "loan")
    offer(people, "cleo", 22, "late", "sent", "failed")
    assert labels(people, day(20)) == before
    assert sorted(before.values()) == [OPEN] + ["yes"] * 7


def test_a_take_up_counts_for_one_channel_only(people: Any, day: Days) -> None:
    common = {"decision_id": "d1", "purpose": "marketing"}
    for number, channel in enumerate(("app", "sms")):
        people.event("anna", 1 + number, "sent", channel=channel, message_id=f"m{number}", **common)
        people.event("anna", 1.5 + number, "delivered", channel=channel, message_id=f"m{number}", **common)
    people.event("anna", 4, "converted", product_id="loan", decision_id="d1")
    spine = channel_spine(people.bank, "messages", day(50), 7 * DAY)
    assert spine.taken.any(axis=1).tolist() == [False, True]


def test_a_served_message_is_answered_by_the_take_up_that_is_attributed_to_it(people: Any, day: Days) -> None:
    people.windows["loan"] = 20.0
    offer(people, "anna", 10, "d1", "sent", "delivered")
    offer(people, "ben", 10, "d2", "sent", "delivered")
    people.serves("anna", 25, "converted", product_id="loan", channel="web")
    people.serves("ben", 33, "converted", product_id="loan")
    spine = channel_spine(people.bank, "messages", day(50), 7 * DAY)
    assert dict(zip(spine.customer_id, spine.taken.any(axis=1), strict=True)) == {"anna": True, "ben": False}


def test_an_unknown_rule_is_refused_with_those_that_exist(people: Any) -> None:
    people.event("anna", 1, "converted", product_id="loan")
    with pytest.raises(InputError, match=r"last-touch-1, shapley-1, however 'first' was"):
        make_plan(Order(CHANNEL_CHOICE, attribution="first"), people.bank)


def stamp(at: int) -> pd.Timestamp:
    return pd.Timestamp(at, unit="us", tz="UTC")
