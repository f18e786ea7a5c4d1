"""From a bank's log to what another policy would have earned: rewards, candidates, and who is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from training.labels import DAY
from training.policies.off_policy import ESTIMATORS
from training.policies.policy_candidates import Options, set_against, without_contents
from training.policies.policy_cases import NO_CONTACT, Cases, cases

Days = Callable[[float], int]
MARGINS, COSTS = np.array([50.0, 200.0]), np.array([0.0, 0.0, 0.3])
WINDOW = 7 * DAY


def decided(world: Any, customer: str, day: float, decision: str, **columns: Any) -> None:
    world.event(customer, day, "decided", decision_id=decision, **{"purpose": "marketing", **columns})


@pytest.fixture
def log(world: Any) -> Any:
    world.knows(anna=0, ben=0, cleo=0)
    offer = {"product_id": "loan", "channel": "sms", "propensity": 0.25}
    decided(world, "anna", 1, "yes", **offer)
    world.event("anna", 1.1, "sent", channel="sms", decision_id="yes")
    world.event("anna", 2, "converted", product_id="loan", decision_id="yes")
    decided(world, "ben", 1, "no", **offer)
    world.event("ben", 1.1, "sent", channel="sms", decision_id="no")
    decided(world, "cleo", 1, "never sent", **offer)
    decided(world, "anna", 3, "left alone", propensity=0.5)
    return world


def rewards(found: Cases) -> dict[str, float]:
    return dict(zip(found.frame["decision_id"], found.frame["reward"].round(9), strict=True))


def test_a_decision_earned_its_margin_less_what_the_message_cost(log: Any, day: Days) -> None:
    found = cases(log.bank, day(30), WINDOW, MARGINS, COSTS, 100)
    assert rewards(found) == {"yes": 199.7, "no": -0.3, "never sent": 0.0, "left alone": 0.0}
    assert dict(zip(found.frame["decision_id"], found.taken, strict=True))["left alone"] == NO_CONTACT


def test_only_marketing_with_a_propensity_and_a_closed_window_is_judged(log: Any, day: Days) -> None:
    offer = {"product_id": "card", "channel": "app"}
    decided(log, "ben", 2, "unknown chance", **offer)
    decided(log, "ben", 3, "service", **{**offer, "propensity": 1.0, "purpose": "service"})
    decided(log, "ben", 28, "open", propensity=0.5, **offer)
    decided(log, "ben", 28, "left alone lately", propensity=0.5)
    found = cases(log.bank, day(30), WINDOW, MARGINS, COSTS, 100)
    assert set(rewards(found)) == {"yes", "no", "never sent", "left alone"}
    assert found.left_out == {
        "no propensity was logged": 1,
        "the window was still open, or no product was named": 2,
    }


def test_a_log_without_propensities_bears_nothing(world: Any, day: Days) -> None:
    world.knows(anna=0)
    decided(world, "anna", 1, "d", product_id="loan", channel="sms")
    with pytest.raises(InputError, match="no propensity was logged: 1"):
        cases(world.bank, day(30), WINDOW, MARGINS, COSTS, 100)


def some_cases(*taken: Any) -> Cases:
    frame = pd.DataFrame(
        {"customer_id": ["a", "b"], "decision_id": ["d1", "d2"], "propensity": [0.5, 0.25], "reward": [10.0, 3.0]}
    )
    return Cases(frame, taken, {})


def test_what_is_no_candidate_any_more_is_never_taken_by_the_target() -> None:
    keys = [("loan", "sms", "x"), NO_CONTACT]
    options = [Options(keys, np.array([0.75, 0.25]), np.array([2.0, 0.0]))] * 2
    log = set_against(some_cases(keys[0], ("card", "app", "y")), options, whole=False)
    assert log.candidates.tolist() == [2, 3]
    assert log.weight.tolist() == [0.75 / 0.5, 0.0]
    assert ESTIMATORS["ips"](log).value == pytest.approx(10.0 * 1.5 / 2)


def test_where_the_log_tells_no_contents_those_of_a_pair_count_as_one() -> None:
    keys = [("loan", "sms", "x"), ("loan", "sms", "y"), NO_CONTACT]
    found = without_contents(Options(keys, np.array([0.5, 0.25, 0.25]), np.array([2.0, 2.0, 0.0])))
    assert list(found.keys) == [("loan", "sms", None), NO_CONTACT]
    assert found.target.tolist() == [0.75, 0.25]
    log = set_against(some_cases(("loan", "sms", None), NO_CONTACT), [found] * 2, whole=True)
    assert log.weight.tolist() == [1.5, 1.0]
