"""What monitoring says of served decisions, in worlds whose right answer can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.arbitration import Arms
from features.catalog import Catalog, Channel, Content, Product
from features.schema import Attribute, Bool, Float64, Rows, RowSchema
from serving.question import Question
from training.labels import DAY
from training.monitoring.arm_lift import arm_lift
from training.monitoring.coverage import coverage
from training.monitoring.decay import of_contacts, of_products, ratio
from training.monitoring.histogram import Histogram
from training.monitoring.served_log import Decided, decided, in_order, newest_of_each
from training.monitoring.underserved import (
    CONSENT,
    CONTACT_POLICY,
    CONTENT,
    ELIGIBILITY,
    EXPERIMENT,
    LIKELIHOOD,
    SUITABILITY,
    VALUE,
    groups,
    layer_of,
    tail_of,
    underserved,
)
from training.monitoring.watched import scores_of
from training.policies.policy_cases import NO_CONTACT, Key

Days = Callable[[float], int]
LOAN_BY_SMS: Key = ("loan", "sms", None)


def served(name: str, at: int = 0, customer: str = "anna", action: Key = LOAN_BY_SMS, **columns: Any) -> Decided:
    values: dict[str, Any] = {
        "arm": "agent", "expected": 0.2, "worth": 1.0, "offered": {"card": 0.1, "loan": 0.2}, "removed": (),
        "reasons": (), "degraded": (), "features": None,
    }  # fmt: skip
    return Decided(name, customer, at, action=action, **{**values, **columns})


def offer(world: Any, customer: str, day: float, name: str) -> None:
    columns = {"purpose": "marketing", "channel": "sms", "product_id": "loan", "propensity": 0.5}
    world.serves(customer, day, "decided", decision_id=name, **columns)
    world.serves(customer, day + 0.1, "sent", channel="sms", decision_id=name, message_id=f"m{name}")
    world.serves(customer, day + 0.2, "delivered", channel="sms", decision_id=name, message_id=f"m{name}")


# --- what is read from a record


def record(**changes: Any) -> dict[str, Any]:
    factors = {"propensity": 0.1, "channel": 0.5, "response": 4.0}
    action = {"product_id": "loan", "channel": "sms", "content_id": "l1"}
    whole = {
        "decision_id": "d1", "customer_id": "anna", "as_of": "1970-01-01T00:00:01Z", "purpose": "marketing",
        "arm": "random", "action": {**action, "text": "hello"}, "asked": {"message": None},
        "candidates": [{**action, "value": 7.0, "factors": factors, "propensity": 0.5},
                       {**dict.fromkeys(action), "value": 0.0, "factors": None, "propensity": 0.5}],
        "removed": [{"subject": "product", "id": "card", "rule": "held", "reason": "held"}],
        "reasons": [{"rule": "arm_random", "reason": "random"}], "degraded_because": ["no model"], "features": None,
    }  # fmt: skip
    return {**whole, **changes}


def test_a_record_says_what_was_decided_what_it_was_worth_and_what_was_expected() -> None:
    found = decided(record())
    assert found is not None
    assert (found.at, found.arm, found.action) == (1_000_000, "random", ("loan", "sms", "l1"))
    assert found.expected == pytest.approx(0.1 * 0.5 * 4.0)
    assert found.worth == 7.0
    assert found.offered == {"loan": 0.1}
    assert found.removed == (("product", "card", "held"),)


def test_no_contact_has_no_expectation_and_what_nobody_chose_is_left_out() -> None:
    silent = decided(record(action=None))
    assert silent is not None
    assert silent.action == NO_CONTACT
    assert np.isnan(silent.expected)
    assert decided(record(purpose="service")) is None
    assert decided(record(asked={"message": {"product_id": "loan"}})) is None


def test_each_customer_is_looked_at_once_by_the_newest_decision() -> None:
    found = in_order([served("late", 9), None, served("early", 1), served("other", 5, "ben")])
    assert [one.decision_id for one in found] == ["early", "other", "late"]
    assert {one.decision_id for one in newest_of_each(found)} == {"late", "other"}


# --- calibration


def test_the_interval_of_a_ratio_is_that_of_a_poisson_count() -> None:
    found = ratio("all", np.full(100, 0.1), np.arange(100) < 10)
    assert found.value == pytest.approx(1.0)
    assert (found.low, found.high) == pytest.approx((0.4795, 1.8390), abs=1e-4)  # Garwood's 4.795 to 18.390 of 10
    none = ratio("all", np.full(30, 0.1), np.zeros(30, bool))
    assert (none.low, none.high) == pytest.approx((0.0, 3.6889 / 3), abs=1e-4)


def test_only_a_ratio_that_surely_lies_outside_is_off() -> None:
    assert not ratio("calibrated", np.full(1_000, 0.1), np.arange(1_000) < 100).off
    assert ratio("too sure", np.full(1_000, 0.1), np.arange(1_000) < 50).off
    assert ratio("too modest", np.full(1_000, 0.1), np.arange(1_000) < 200).off
    assert not ratio("few", np.full(10, 0.1), np.arange(10) < 3).off


def test_a_contact_worked_where_a_conversion_names_it_and_counts_when_its_window_has_closed(
    world: Any, day: Days
) -> None:
    world.knows(anna=0, ben=0, cleo=0, dora=0)
    for number, customer in enumerate(("anna", "ben", "cleo")):
        offer(world, customer, 2, f"d{number}")
    offer(world, "dora", 28, "open")
    world.serves("anna", 3, "converted", product_id="loan", decision_id="d0")
    world.serves("ben", 4, "converted", product_id="loan")  # of their own accord, or so it seems
    world.event("cleo", 30, "visited", channel="web")
    found = [served(f"d{number}", day(2), customer) for number, customer in enumerate(("anna", "ben", "cleo"))]
    found += [served("open", day(28), "dora"), served("silent", day(2), "ben", NO_CONTACT)]
    told = of_contacts(found, world.bank, day(30), 7 * DAY)
    assert (told.whole.pairs, told.whole.observed, told.open, told.lost) == (3, 1, 1, 0)
    assert told.whole.expected == pytest.approx(0.6)


def test_a_product_is_taken_up_whoever_offered_it_and_a_customer_counts_once_a_week(world: Any, day: Days) -> None:
    world.knows(anna=0, ben=0).opens("anna", 12, "card").opens("ben", 40, "card")
    found = [served("first", day(10)), served("again", day(11)), served("ben", day(10), "ben", arm="random")]
    told = of_products(found, world.bank, day(40), 14 * DAY)
    assert (told.whole.pairs, told.whole.observed) == (4, 1)
    assert told.whole.expected == pytest.approx(0.6)
    assert {arm.name: arm.observed for arm in told.arms} == {"agent": 1, "random": 0}
    assert of_products(found, world.bank, day(20), 14 * DAY).open == 2


def test_weeks_are_judged_apart_and_their_intervals_are_wider(world: Any, day: Days) -> None:
    world.knows(**{f"c{number}": 0.0 for number in range(8)})
    found = [served(f"d{number}", day(2 + 7 * (number % 2)), f"c{number}") for number in range(8)]
    told = of_products(found, world.bank, day(40), 14 * DAY)
    assert [week.pairs for week in told.weeks] == [8, 8]
    alone = ratio("", np.array([0.1, 0.2] * 4), np.zeros(8, bool))
    assert told.weeks[0].high > alone.high


# --- arms


def test_arms_count_customers_by_period_and_small_ones_give_no_lift(world: Any, day: Days) -> None:
    world.knows(anna=0, ben=0).opens("anna", 3, "card").opens("ben", 60, "loan")
    found = [served("a", day(1)), served("b", day(2)), served("c", day(1), "ben", NO_CONTACT, arm="holdout")]
    found += [served("late", day(55))]
    told = arm_lift(found, world.bank, Arms(), day(60), 10 * DAY, 0.5)
    assert {name: (arm.customers, arm.took_up) for name, arm in told.arms.items()} == {
        "agent": (1, 1),
        "holdout": (1, 0),
    }
    assert told.readings["holdout"].lift is None
    assert "wait for" in told.readings["holdout"].reason
    assert told.open == 1


def test_arms_in_which_nearly_nobody_or_everybody_took_up_give_no_lift(world: Any, day: Days) -> None:
    world.knows(anna=0, ben=0).opens("anna", 3, "card").opens("ben", 3, "card")
    found = [served("a", day(1)), served("b", day(1), "ben", arm="random")]
    told = arm_lift(found, world.bank, Arms(), day(60), 10 * DAY, 0.5)
    assert told.readings["random"].lift is None
    assert "rates lie between 0 and 1" in told.readings["random"].reason


def test_large_arms_give_the_lift(world: Any, day: Days) -> None:
    people = [f"c{number}" for number in range(1_200)]
    world.knows(**dict.fromkeys(people, 0.0))
    for number, customer in enumerate(people):
        if number % 10 < (4 if number % 2 else 2):  # odd ones, the agent's: 2 of 5; even ones: 1 of 5
            world.opens(customer, 3, "card")
    found = [served(f"d{n}", day(1), customer, arm="agent" if n % 2 else "random") for n, customer in enumerate(people)]
    told = arm_lift(found, world.bank, Arms(), day(3) + 7 * DAY, 7 * DAY, 1.0)
    lift = told.readings["random"].lift
    assert lift is not None
    assert lift.value == pytest.approx(1.0)
    assert lift.low > 0.5


# --- coverage and under-served customers

CATALOG = Catalog(
    "EUR", "UTC",
    (Product("card", "Card", holdable=True), Product("loan", "Loan")),
    (Channel("app", "App", "both"), Channel("sms", "SMS", "outbound"), Channel("desk", "Desk", "inbound")),
    (Content("l1", "en", "text"), Content("l2", "en", "text")),
    policies=({"id": "few", "kind": "cap", "limit": 1, "days": 7}, {"id": "means", "kind": "affordability"},
              {"id": "adult", "kind": "audience"}),
)  # fmt: skip


def test_coverage_counts_what_contacts_used_of_the_catalogue() -> None:
    used = [served(str(n), action=("loan", "sms", "l1")) for n in range(3)] + [served("none", action=NO_CONTACT)]
    products, channels, contents = coverage(used, CATALOG)
    assert dict(products.counts) == {"loan": 3, "card": 0}
    assert (products.share, products.unused, products.exposure_gini) == (0.5, ("card",), 0.5)
    assert dict(channels.counts) == {"sms": 3, "app": 0}
    assert contents.unused == ("l2",)
    assert np.isnan(coverage([], CATALOG)[0].exposure_gini)


ALL_CHANNELS = (("channel", "app"), ("channel", "sms"))
BOTH = [0.3, 0.2]


@pytest.mark.parametrize(
    ("layer", "nothing", "scores", "changes"),
    [
        (None, False, BOTH, {}),
        (LIKELIHOOD, False, [0.01, 0.02], {}),
        (ELIGIBILITY, True, [np.nan, np.nan], {"offered": {}}),
        (ELIGIBILITY, False, [0.3, 0.02], {"removed": (("product", "card", "adult"),)}),
        (CONSENT, True, BOTH, {"removed": tuple((*channel, "no_consent") for channel in ALL_CHANNELS)}),
        (CONSENT, True, BOTH, {"reasons": ("unknown_customer",)}),
        (SUITABILITY, False, [0.3, 0.02], {"removed": (("product", "card", "means"),)}),
        (CONTACT_POLICY, True, BOTH, {"removed": (("channel", "app", "no_consent"), ("channel", "sms", "few"))}),
        (CONTENT, True, BOTH, {"offered": {}}),
        (CONTENT, False, [0.3, 0.02], {"removed": (("action", "card/app", "no_content"),
                                                    ("action", "card/sms", "no_content"))}),
        (EXPERIMENT, False, [0.3, 0.02], {"removed": (("product", "card", "product_holdout"),)}),
        (VALUE, True, BOTH, {"worth": 0.0}),
    ],
)  # fmt: skip
def test_the_first_layer_that_leaves_nothing_or_nothing_likely_is_named(
    layer: str | None, nothing: bool, scores: list[float], changes: Mapping[str, Any]
) -> None:
    found = underserved([served("d", **changes)], np.array([scores]), nobody(1), CATALOG, threshold=0.05)
    told = {name: (found.none[name], found.tiny[name]) for name in found.none if found.none[name] + found.tiny[name]}
    assert told == ({} if layer is None else {layer: (1, 0) if nothing else (0, 1)})


def test_rules_belong_to_the_layer_of_their_kind() -> None:
    assert [layer_of(rule, CATALOG) for rule in ("few", "means", "adult", "held", "no_consent", "maturing")] == [
        CONTACT_POLICY, SUITABILITY, ELIGIBILITY, ELIGIBILITY, CONSENT, EXPERIMENT,
    ]  # fmt: skip


def test_groups_are_told_worst_first_and_small_ones_not_at_all() -> None:
    rows = nobody(100)
    rows.customer[:60, 0], rows.customer[60:80, 1], rows.customer[80:, 2] = 1, 1, 1
    rows.held[:50] = True
    found = groups(rows, np.arange(100) < 30)
    assert found[0] == ("history", "holds something", 50, 0.6)
    assert ("segment", "mass", 60, 0.5) in found
    assert not [one for one in found if one[1] == "young"]


def test_the_tail_is_the_five_percent_quantile() -> None:
    values = np.linspace(0.0, 1.0, 1_001)
    assert tail_of(Histogram.of("best score", values, np.ones(1_001))) == pytest.approx(0.05, abs=0.005)
    assert tail_of(Histogram.of("best score", np.full(9, 0.5), np.ones(9))) == 0.0


class Even:
    """A model that says one half of whatever it is asked about."""

    question = Question("channel-choice", ("app", "sms", "desk"), "channel", "each", True, 7.0)

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        assert len(rows) == len(available)
        return np.where(available, 0.5, np.nan)


def test_a_model_of_messages_is_asked_about_the_channel_that_was_used_and_no_other() -> None:
    rows, build = nobody(2), SimpleNamespace(catalog=CATALOG)
    rows.opted_out[0, 0] = True
    model: Any = Even()
    used = scores_of(model, rows, build, ["sms", "app"])  # type: ignore[arg-type]
    assert np.isfinite(used).tolist() == [[False, True, False], [True, False, False]]
    allowed = scores_of(model, rows, build)  # type: ignore[arg-type]
    assert np.isfinite(allowed).tolist() == [[False, True, False], [True, True, False]]


def nobody(count: int) -> Rows:
    words = ("mass", "young", "private")
    schema = RowSchema(
        ("card", "loan"), (True, False), ("app", "sms", "desk"), (Attribute("segment", "text"),),
        (("segment", words),), "UTC", tuple(f"segment = {word}" for word in words), (), (),
    )  # fmt: skip
    return Rows(
        np.zeros((count, 3), np.float32), np.zeros((count, 2, 0), np.float32), np.zeros((count, 3, 0), np.float32),
        np.zeros((count, 2), bool), np.zeros((count, 3), bool), schema,
    )  # fmt: skip
