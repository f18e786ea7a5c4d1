"""Experiments: arms stick, shares hold, and a propensity is that of the whole policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import chisquare

from features.arbitration import ARMS, Arms, Declared, Maturity
from serving.arms import arm_of, period, withheld
from serving.decide import Decider
from serving.decision import Decision
from serving.policy import Policy
from serving.sensitivity import recorded_factors, sensitivity

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

SHARES = {"agent": 0.5, "random": 0.2, "business_as_usual": 0.2, "holdout": 0.1}
AGENT = Policy(temperature=0.5, epsilon=0.3)


def experiment(world: World, arms: Arms, policy: Policy = AGENT, **more: Any) -> Decider:
    decider = world.with_models(policy=policy)
    worth = replace(decider.worth, declared=replace(Declared(), arms=arms, **more), take_ups=np.array([9.0, 3.0]))
    return replace(decider, worth=worth)


def only(arm: str) -> Arms:
    return Arms({arm: 1.0}, "s")


def rules(decision: Decision) -> set[str]:
    return {reason.rule for reason in decision.reasons}


def test_shares_of_customers_are_the_declared_ones(world: World) -> None:
    arms = Arms(SHARES, "s")
    seen = [arm_of(arms, f"c{number}", world.ask().as_of) for number in range(20_000)]
    counts = [seen.count(arm) for arm in ARMS]
    assert chisquare(counts, [SHARES[arm] * len(seen) for arm in ARMS]).pvalue > 1e-3


def test_an_arm_sticks_for_its_period_and_is_drawn_anew_in_the_next(world: World) -> None:
    arms, at = Arms(SHARES, "s", period_days=30.0), world.ask().as_of
    begin = at - (at - at.replace(year=1970, month=1, day=1, hour=0)) % timedelta(days=30)
    assert period(arms, begin - timedelta(microseconds=1)) + 1 == period(arms, begin)
    last = begin + timedelta(days=30) - timedelta(microseconds=1)
    names = [f"c{number}" for number in range(300)]
    assert all(arm_of(arms, name, begin) == arm_of(arms, name, last) for name in names)
    later = begin + timedelta(days=30)
    assert 50 < sum(arm_of(arms, name, begin) != arm_of(arms, name, later) for name in names) < 290


def test_another_salt_is_another_lottery(world: World) -> None:
    at = world.ask().as_of
    names = [f"c{number}" for number in range(300)]
    both = [(arm_of(Arms(SHARES, "s"), name, at), arm_of(Arms(SHARES, "t"), name, at)) for name in names]
    assert 50 < sum(one != other for one, other in both) < 290


def test_the_holdout_is_not_contacted_and_says_so(world: World) -> None:
    decision = experiment(world, only("holdout")).decide(world.ask(), "1")
    assert (decision.action, decision.arm, decision.propensity) == (None, "holdout", 1.0)
    assert rules(decision) == {"arm_holdout"}


def test_the_random_arm_draws_every_feasible_action_alike(world: World) -> None:
    decision = experiment(world, only("random")).decide(world.ask(), "1")
    assert decision.propensities == pytest.approx([1 / 6] * 6)
    assert (decision.arm, decision.arm_propensity) == ("random", pytest.approx(1 / 6))


def test_business_as_usual_takes_the_product_most_taken_up_by_the_cheapest_channel(world: World) -> None:
    decision = experiment(world, only("business_as_usual")).decide(world.ask(), "1")
    assert decision.action is not None
    assert (decision.action.product_id, decision.action.channel, decision.propensity) == ("card", "push", 1.0)


def test_business_as_usual_keeps_to_the_rules(world: World) -> None:
    decision = experiment(world, only("business_as_usual")).decide(world.ask("held", channels=("email",)), "1")
    assert decision.action is not None
    assert (decision.action.product_id, decision.action.channel) == ("loan", "email")


def test_every_action_is_drawn_as_often_as_its_propensity_over_the_lottery_of_arms(world: World) -> None:
    """The arms of 2,000 experiments (salts) on one customer are 2,000 lots of the lottery."""
    decisions = [experiment(world, Arms(SHARES, f"s{n}")).decide(world.ask(), f"{n}") for n in range(2_000)]
    first = decisions[0]
    order = {candidate.action: place for place, candidate in enumerate(first.candidates)}
    seen = np.bincount([order[decision.action] for decision in decisions], minlength=len(order))
    assert chisquare(seen, np.array(first.propensities) * len(decisions)).pvalue > 1e-3
    for decision in decisions:
        assert decision.propensities == first.propensities
        assert decision.arm_propensity, "the arm that decided can take this action"
        assert decision.arm != "holdout" or decision.action is None
        assert decision.propensity == first.propensities[order[decision.action]]


def test_the_propensity_given_the_arm_is_kept_beside_that_of_the_whole_policy(world: World) -> None:
    alone = experiment(world, Arms()).decide(world.ask(), "1")
    mixed = [experiment(world, Arms(SHARES, f"s{n}")).decide(world.ask(), "1") for n in range(40)]
    agents = [decision for decision in mixed if decision.arm == "agent"]
    assert agents
    for decision in agents:
        assert decision.action == alone.action
        assert decision.arm_propensity == alone.propensity
        assert decision.propensity != alone.propensity


@pytest.mark.parametrize("purpose", ["service", "mandatory"])
def test_only_marketing_is_experimented_with(world: World, purpose: str) -> None:
    decider = experiment(world, Arms({"holdout": 1.0}, "s", products={"card": 1.0}))
    decision = decider.decide(world.ask(purpose=purpose), "1")
    assert decision.arm == "agent"
    assert any(candidate.action and candidate.action.product_id == "card" for candidate in decision.candidates)


def test_a_mandatory_message_is_sent_by_its_best_action_even_where_it_does_not_pay(world: World) -> None:
    decider = world.with_models((1e-6, 1e-7), policy=Policy(1.0, 1.0))
    decisions = [decider.decide(world.ask(purpose="mandatory"), f"{n}") for n in range(20)]
    values = [candidate.value for candidate in decisions[0].candidates if candidate.action]
    assert max(values) < 0
    for decision in decisions:
        assert decision.action is not None
        assert decision.value == max(values)
    silent = decider.decide(world.ask("held", eligible=("card",), purpose="mandatory"), "1")
    assert (silent.action, silent.propensity) == (None, 1.0)


def test_a_product_may_have_a_control_group_of_its_own(world: World) -> None:
    decision = experiment(world, Arms({"agent": 1.0}, "s", products={"card": 1.0})).decide(world.ask(), "1")
    assert {candidate.action.product_id for candidate in decision.candidates if candidate.action} == {"loan"}
    assert ("card", "product_holdout") in {(removed.id, removed.rule) for removed in decision.removed}
    everything = Arms({"agent": 1.0}, "s", products={"card": 1.0, "loan": 1.0})
    nothing = experiment(world, everything).decide(world.ask(), "1")
    assert (nothing.action, nothing.propensity, rules(nothing)) == (None, 1.0, {"kept_back"})


def test_a_new_product_is_let_out_on_a_ramp_that_never_takes_it_back(world: World) -> None:
    names, at = [f"c{number}" for number in range(2_000)], world.ask().as_of
    reached: set[str] = set()
    for take_ups, share in ((0.0, 0.02), (50.0, 0.265), (200.0, 1.0)):
        evidence = np.array([take_ups])
        has = {name for name in names if not withheld(Arms(), Maturity(), evidence, ["new"], name, at)}
        assert len(has) / len(names) == pytest.approx(share, abs=0.03)
        assert reached <= has
        reached = has


def test_sensitivity_counts_the_winners_that_change_when_a_factor_is_dropped(world: World) -> None:
    # The loan wins by its margin alone: the card is likelier. E-mail wins by working better alone: push is cheaper.
    decisions = [world.with_models((0.02, 0.01), (0.25, 0.5, 0.1)).decide(world.ask(), f"{n}") for n in range(3)]
    found = sensitivity(recorded_factors(decision.record()) for decision in decisions)
    assert found.decisions == 3
    changed = {factor: share for factor, share in found.changed.items() if share}
    assert changed == {"value": 1.0, "channel": 1.0}
    assert sensitivity([recorded_factors(world.with_models().decide(world.ask("silent"), "1").record())]).changed == {}
