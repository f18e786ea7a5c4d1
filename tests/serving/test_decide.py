"""The decision in a small bank: rules hold, propensities are exact, nothing fails open."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import chisquare

from features.catalog import Content
from serving.content import Contents
from serving.decide import Decider
from serving.decision import Action, Ask, Decision
from serving.errors import FeaturesUnavailable
from serving.policy import Policy

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

EVERY = Policy(temperature=1.0, epsilon=1.0)
"""Draws every feasible action alike, so that a wrongly feasible one shows up soon."""
GREEDY = Policy(temperature=0.0, epsilon=0.0)


def actions(decider: Decider, ask: Ask) -> set[Action | None]:
    return {candidate.action for candidate in decider.decide(ask, "0").candidates}


def rules(decision: Decision) -> set[str]:
    return {reason.rule for reason in decision.reasons}


def removed(decision: Decision) -> dict[str, str]:
    return {item.id: item.rule for item in decision.removed}


def test_every_action_is_drawn_as_often_as_its_recorded_propensity(world: World) -> None:
    decider = world.with_models(policy=Policy(temperature=0.5, epsilon=0.3))
    decisions = [decider.decide(world.ask(), f"{number:032x}") for number in range(1000)]
    first = decisions[0]
    order = {candidate.action: place for place, candidate in enumerate(first.candidates)}
    seen = np.bincount([order[decision.action] for decision in decisions], minlength=len(order))
    assert chisquare(seen, np.array(first.propensities) * len(decisions)).pvalue > 1e-3
    for decision in decisions:
        assert decision.propensity == first.propensities[order[decision.action]]


def test_candidates_are_product_times_channel_times_content_and_no_contact(world: World) -> None:
    assert actions(world.with_models(), world.ask()) == {
        Action("card", "push", "plain", "Gold card for you"),
        Action("card", "email", "plain", "Gold card for you"),
        Action("loan", "push", "plain", "Car loan for you"),
        Action("loan", "push", "named", "Anna, look at the Car loan"),
        Action("loan", "email", "plain", "Car loan for you"),
        None,
    }


def test_the_best_action_is_the_highest_expected_value(world: World) -> None:
    decision = world.with_models(policy=GREEDY).decide(world.ask(), "1")
    assert decision.action is not None
    assert (decision.action.product_id, decision.action.channel) == ("loan", "push")
    fatigue, disturbance = 0.002 * 0.05 * 250, 0.0001 * 250  # 250: the mean margin
    assert decision.value == pytest.approx(0.01 * 0.5 * 400 * 1.1 - 0.1 - fatigue - disturbance)
    assert decision.fallback_channels == ("email",)


def test_no_contact_wins_when_nothing_is_worth_its_cost(world: World) -> None:
    decision = world.with_models((1e-6, 1e-6), policy=GREEDY).decide(world.ask(), "1")
    assert decision.action is None
    assert (decision.value, decision.propensity, rules(decision)) == (0.0, 1.0, {"nothing_worth_it"})


def test_a_held_product_is_never_offered(world: World) -> None:
    decider = world.with_models((1.0, 0.001), policy=EVERY)
    decision = decider.decide(world.ask("held"), "1")
    assert {action.product_id for action in actions(decider, world.ask("held")) if action} == {"loan"}
    assert removed(decision)["card"] == "held"


def test_only_eligible_products_are_offered_and_unknown_ones_are_named(world: World) -> None:
    ask = world.ask(eligible=("card", "yacht"))
    decider = world.with_models()
    assert {action.product_id for action in actions(decider, ask) if action} == {"card"}
    assert removed(decider.decide(ask, "1")) == {
        "loan": "not_eligible",
        "yacht": "unknown_product",
        "branch": "inbound_only",
    }


def test_an_opt_out_removes_the_channel_only(world: World) -> None:
    decider = world.with_models(channels=(0.01, 1.0, 0.1))
    assert {action.channel for action in actions(decider, world.ask("refuser")) if action} == {"push"}
    assert removed(decider.decide(world.ask("refuser"), "1"))["email"] == "no_consent"


@pytest.mark.parametrize("purpose", ["marketing", "service", "mandatory"])
def test_an_opt_out_of_everything_means_no_contact_for_any_purpose(world: World, purpose: str) -> None:
    decision = world.with_models(policy=EVERY).decide(world.ask("silent", purpose=purpose), "1")
    assert (decision.action, rules(decision), decision.propensity) == (None, {"no_channel"}, 1.0)


def test_an_inbound_channel_is_never_used_to_contact(world: World) -> None:
    decision = world.with_models(policy=EVERY).decide(world.ask(channels=("branch",)), "1")
    assert (decision.action, rules(decision)) == (None, {"no_channel"})


def test_nothing_eligible_means_no_contact(world: World) -> None:
    decision = world.with_models(policy=EVERY).decide(world.ask(eligible=()), "1")
    assert (decision.action, rules(decision)) == (None, {"no_product"})


def test_an_unknown_customer_is_not_contacted_but_ranked_cold(world: World) -> None:
    decider = world.with_models(policy=EVERY)
    decision = decider.decide(world.ask("stranger"), "1")
    assert (decision.action, rules(decision), decision.propensity) == (None, {"unknown_customer"}, 1.0)
    ranking = decider.rank(world.ask("stranger"))
    assert [product.product_id for product in ranking.products] == ["card", "loan"]
    assert [reason.rule for reason in ranking.reasons] == ["unknown_customer"]


def test_before_the_first_fact_a_customer_is_unknown(world: World) -> None:
    before = datetime.fromisoformat("2023-01-01T00:00:00+00:00")
    assert rules(world.with_models(policy=EVERY).decide(world.ask(as_of=before), "1")) == {"unknown_customer"}


def test_consent_given_later_than_as_of_is_not_used(world: World) -> None:
    before = datetime.fromisoformat("2024-01-02T00:00:00+00:00")
    decision = world.with_models(policy=EVERY).decide(world.ask("refuser", before), "1")
    assert (decision.action, rules(decision)) == (None, {"consent_not_known"})


def test_holdings_later_than_as_of_remove_what_might_be_held(world: World) -> None:
    before = datetime.fromisoformat("2024-01-01T12:00:00+00:00")
    decider = world.with_models(policy=EVERY)
    decision = decider.decide(world.ask("held", before), "1")
    assert removed(decision)["card"] == "holdings_not_known"
    assert "holdings" in decision.degraded[0]
    assert {action.product_id for action in actions(decider, world.ask("held", before)) if action} == {"loan"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.1, 1.5])
def test_a_score_that_is_no_probability_drops_its_product_and_is_counted(world: World, bad: float) -> None:
    decider = world.with_models((bad, 0.01), policy=EVERY)
    decision = decider.decide(world.ask(), "1")
    assert {action.product_id for action in actions(decider, world.ask()) if action} == {"loan"}
    assert (decision.dropped, removed(decision)["card"]) == (1, "no_score")
    assert [product.product_id for product in decider.rank(world.ask()).products] == ["loan"]


def test_a_broken_model_hands_over_to_the_prior_and_says_so(world: World) -> None:
    decision = world.with_models(RuntimeError("boom"), prior=(0.5, 0.1)).decide(world.ask(), "1")
    assert decision.versions.models["next-best-product"] == "1"
    assert decision.degraded == ("champion of next-best-product failed (RuntimeError)",)


def test_a_model_without_one_usable_score_counts_as_broken(world: World) -> None:
    nan = float("nan")
    decision = world.with_models((nan, nan), prior=(0.5, 0.1)).decide(world.ask(), "1")
    assert decision.versions.models["next-best-product"] == "1"
    assert decision.degraded == ("champion of next-best-product gave no usable score",)


def test_without_any_model_the_static_rule_answers_degraded(world: World) -> None:
    decider = world.with_models(None, None)
    decision = decider.decide(world.ask(), "1")
    assert decision.versions.models == {"next-best-product": "static", "channel-choice": "static"}
    assert any("static rule" in reason for reason in decision.degraded)
    assert [product.product_id for product in decider.rank(world.ask()).products] == ["card", "loan"]


def test_features_that_cannot_be_read_stop_the_decision(world: World) -> None:
    class Broken:
        def read(self, customer_ids: object) -> Any:
            raise OSError("disk")

    with pytest.raises(FeaturesUnavailable):
        replace(world.with_models(), customers=Broken()).decide(world.ask(), "1")


def test_a_failing_template_removes_its_action_and_nothing_else(world: World) -> None:
    # The customer `refuser` has no first name.
    decision = world.with_models(policy=EVERY).decide(world.ask("refuser"), "1")
    assert removed(decision)["loan/push/named"] == "content_failed"
    assert {candidate.action.content_id for candidate in decision.candidates if candidate.action} == {"plain"}


def test_when_no_content_fits_there_is_no_contact(world: World) -> None:
    catalog = replace(world.decider.catalog, contents=(Content("c", "en", "{{ nobody }}"),))
    decider = world.with_models(catalog=catalog, contents=Contents(catalog), policy=EVERY)
    decision = decider.decide(world.ask(), "1")
    assert (decision.action, rules(decision)) == (None, {"no_content"})


def test_a_catalogue_without_contents_decides_without_text(world: World) -> None:
    catalog = replace(world.decider.catalog, contents=())
    decider = world.with_models(catalog=catalog, contents=Contents(catalog), policy=GREEDY)
    assert decider.decide(world.ask(), "1").action == Action("loan", "push", None, None)


def test_the_language_of_the_request_chooses_the_content(world: World) -> None:
    found = actions(world.with_models(), world.ask(language="de"))
    assert Action("card", "push", "schlicht", "Gold card für Sie") in found
    assert {action.content_id for action in found if action} == {"schlicht"}


def test_the_same_question_under_the_same_id_is_decided_the_same(world: World) -> None:
    decider = world.with_models(policy=EVERY)
    assert [decider.decide(world.ask(), f"{n}").record() for n in range(20)] == [
        decider.decide(world.ask(), f"{n}").record() for n in range(20)
    ]


def test_rank_orders_by_probability_and_respects_the_limit(world: World) -> None:
    decider = world.with_models((0.01, 0.3))
    ranking = decider.rank(world.ask())
    assert [(p.product_id, p.probability, p.rank) for p in ranking.products] == [("loan", 0.3, 1), ("card", 0.01, 2)]
    assert [p.product_id for p in decider.rank(world.ask(), limit=1).products] == ["loan"]
    assert [p.product_id for p in decider.rank(world.ask("held")).products] == ["loan"]


def test_an_exploration_below_the_best_value_is_called_one(world: World) -> None:
    decider = world.with_models(policy=EVERY)
    decisions = [decider.decide(world.ask(), f"{n}") for n in range(200)]
    best = max(candidate.value for candidate in decisions[0].candidates)
    for decision in decisions:
        assert rules(decision) == ({"explored"} if decision.value < best else {"highest_value"})


def test_old_enough_facts_expire_and_the_decision_still_answers(world: World) -> None:
    late = world.ask().as_of + timedelta(days=365 * 30)
    assert world.with_models().decide(world.ask(as_of=late), "1").propensity > 0
