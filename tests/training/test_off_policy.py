"""Off-policy estimators in worlds so small that the right answer can be written down.

The log of `toy` holds every (situation, action) exactly as often as the logging policy takes it, and rewards are
certain, so that an estimator whose expectation is the truth must give the truth itself.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from features.errors import InputError
from training.policies.decision_log import DecisionLog
from training.policies.off_policy import ESTIMATORS, evaluate
from training.policies.overlap import Overlap
from training.policies.policy_interval import empirical_bernstein

LOGGED = {"young": (4 / 8, 2 / 8, 2 / 8), "old": (1 / 8, 1 / 8, 6 / 8)}
TARGET = {"young": (0.1, 0.3, 0.6), "old": (0.7, 0.2, 0.1)}
REWARD = {"young": (1.0, 5.0, 2.0), "old": (8.0, 0.0, 4.0)}
TIMES = 50
TRUE_VALUE = ((0.1 * 1 + 0.3 * 5 + 0.6 * 2) + (0.7 * 8 + 0.2 * 0 + 0.1 * 4)) / 2
MODEL_VALUE = (0.1 * 2 + 0.3 * 3 + 0.6 * 3 + 0.7 * 6 + 0.2 * 1 + 0.1 * 5) / 2
PREDICTED = {"young": (2.0, 3.0, 3.0), "old": (6.0, 1.0, 5.0)}


def toy(reward: dict[str, tuple[float, ...]] | None = None, feature: tuple[int, ...] | None = None) -> DecisionLog:
    reward = reward or REWARD
    situations = [name for name in LOGGED for _ in range(8)] * TIMES
    taken = [action for name in LOGGED for action in range(3) for _ in range(round(8 * LOGGED[name][action]))] * TIMES
    return DecisionLog(
        customer_id=np.array([f"c{place}" for place in range(len(taken))], dtype=object),
        reward=np.array([reward[name][action] for name, action in zip(situations, taken, strict=True)]),
        candidates=np.full(len(taken), 3),
        taken=np.array(taken),
        logged=np.array([value for name in situations for value in LOGGED[name]]),
        target=np.array([value for name in situations for value in TARGET[name]]),
        predicted=np.array([value for name in situations for value in PREDICTED[name]]),
        feature=None if feature is None else np.tile(feature, len(taken)),
    )


@pytest.mark.parametrize("name", ["ips", "snips", "dr"])
def test_an_unbiased_estimator_gives_the_true_value_though_the_model_is_wrong(name: str) -> None:
    assert ESTIMATORS[name](toy()).value == pytest.approx(TRUE_VALUE, abs=1e-9)


def test_the_direct_method_says_what_its_model_says() -> None:
    assert ESTIMATORS["dm"](toy()).value == pytest.approx(MODEL_VALUE, abs=1e-9)


@pytest.mark.parametrize("name", ["dm", "dr", "switch-dr", "dros"])
def test_with_the_right_model_every_model_based_estimator_is_right(name: str) -> None:
    right = replace(toy(), predicted=np.array([value for n in ([*LOGGED] * 1) for value in REWARD[n] * 8] * TIMES))
    assert ESTIMATORS[name](right).value == pytest.approx(TRUE_VALUE, abs=1e-9)


def test_mips_is_right_where_the_reward_depends_on_the_feature_alone() -> None:
    by_feature = {"young": (3.0, 3.0, 1.0), "old": (2.0, 2.0, 6.0)}
    truth = (0.4 * 3 + 0.6 * 1 + 0.9 * 2 + 0.1 * 6) / 2
    log = toy(by_feature, feature=(0, 0, 1))
    assert ESTIMATORS["mips"](log).value == pytest.approx(truth, abs=1e-9)
    assert ESTIMATORS["mips"](log).top.var() < ESTIMATORS["ips"](log).top.var(), "that is what it is for"


def test_mips_with_one_class_per_action_is_ips() -> None:
    log = toy(feature=(0, 1, 2))
    assert np.allclose(ESTIMATORS["mips"](log).top, ESTIMATORS["ips"](log).top, rtol=0, atol=1e-12)


def test_switch_dr_keeps_corrections_up_to_the_best_limit_and_dros_shrinks_by_the_best_amount() -> None:
    log = toy()
    weight, residual = log.weight, log.reward - (log.predicted if log.predicted is not None else 0)[log.chosen]
    expected = log.per_decision(log.target * (log.predicted if log.predicted is not None else 0))
    grid = np.quantile(weight, np.linspace(0.05, 1.0, 20))

    def error(changed: np.ndarray) -> float:
        values = expected + changed * residual
        return float(values.var(ddof=1) / len(values) + np.mean((weight - changed) * residual) ** 2)

    switched = [weight * (weight <= limit) for limit in grid]
    shrunk = [limit**2 * weight / (weight**2 + limit**2) for limit in grid]
    for name, tried in (("switch-dr", switched), ("dros", shrunk)):
        best = min(tried, key=error)
        assert ESTIMATORS[name](log).value == pytest.approx(float((expected + best * residual).mean()), abs=1e-9)


def test_empirical_bernstein_is_the_formula() -> None:
    values, customers = np.array([0.0, 1.0, 1.0, 0.0]), np.array(list("abcd"), dtype=object)
    low, high = empirical_bernstein(values, customers, 1.0)
    doubt = math.log(2 / 0.025)
    half = math.sqrt(2 * (1 / 3) * doubt / 4) + 7 * 2 * doubt / (3 * 3)
    assert (low, high) == (max(0.5 - half, -1.0), min(0.5 + half, 1.0))
    many = np.tile(values, 5_000)
    low, high = empirical_bernstein(many, np.arange(len(many)).astype(str).astype(object), 1.0)
    half = math.sqrt(2 * many.var(ddof=1) * doubt / 20_000) + 14 * doubt / (3 * 19_999)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)


def test_snips_moves_with_the_rewards_even_where_the_weights_do_not_sum_to_n() -> None:
    log = toy()
    part = DecisionLog(
        log.customer_id[:7], log.reward[:7], log.candidates[:7], log.taken[:7], log.logged[:21], log.target[:21]
    )
    assert part.weight.sum() != pytest.approx(7.0)
    moved = replace(part, reward=part.reward + 10.0)
    assert ESTIMATORS["snips"](moved).value == pytest.approx(ESTIMATORS["snips"](part).value + 10.0, abs=1e-9)


def test_empirical_bernstein_lies_around_the_mean_of_all_decisions_however_many_a_customer_has() -> None:
    values = np.tile([0.0, 1.0, 1.0, 0.2], 5_000)
    customers = np.array([f"c{place % 2_500}" for place in range(len(values))], dtype=object)
    low, high = empirical_bernstein(values, customers, 1.0)
    assert -1.0 < low < high < 1.0
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=1e-12)


def test_decisions_of_one_customer_are_not_taken_for_independent_ones() -> None:
    log = toy()
    alike = replace(log, customer_id=np.array([f"c{place % 20}" for place in range(len(log))], dtype=object))
    apart = evaluate(log, ["ips"], seed=1).estimates["ips"].bernstein
    together = evaluate(alike, ["ips"], seed=1).estimates["ips"].bernstein
    assert apart is not None
    assert together is not None
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_an_estimate_comes_with_an_interval_that_holds_the_truth() -> None:
    found = evaluate(toy(feature=(0, 1, 2)), list(ESTIMATORS), seed=1)
    assert found.overlap.reasons == ()
    for name in ("ips", "snips", "dr", "mips"):
        interval = found.estimates[name].interval
        assert interval.low < TRUE_VALUE < interval.high
    assert found.logged_value.mean == pytest.approx((4 * 1 + 2 * 5 + 2 * 2 + 8 + 0 + 6 * 4) / 16)


def test_too_few_effective_decisions_withhold_every_estimate() -> None:
    n = 10_000
    logged, target = np.tile([0.999, 0.001], n), np.tile([0.001, 0.999], n)
    taken = np.zeros(n, dtype=np.int64)
    taken[:2] = 1
    customers = np.arange(n).astype(str).astype(object)
    log = DecisionLog(customers, np.ones(n), np.full(n, 2), taken, logged, target)
    found = evaluate(log, ["ips", "snips"], seed=1)
    assert found.estimates == {}
    assert found.overlap.effective_size == pytest.approx(2.02, abs=0.01)
    assert any("effective sample size is 2.0 of 10000" in reason for reason in found.overlap.reasons)


def test_what_was_never_tried_withholds_every_estimate() -> None:
    n = 2_000
    log = DecisionLog(
        np.arange(n).astype(str).astype(object),
        np.ones(n),
        np.full(n, 2),
        np.zeros(n, dtype=np.int64),
        np.tile([1.0, 0.0], n),
        np.tile([0.9, 0.1], n),
    )
    overlap = Overlap.of(log)
    assert overlap.unsupported == pytest.approx(0.1)
    assert overlap.reasons == ("10.0% of what the policy would do was never tried; at most 1%",)


def test_where_only_the_taken_was_logged_missing_weight_may_mean_that_much_was_never_tried() -> None:
    log = toy()
    known = np.full_like(log.logged, np.nan)
    known[log.chosen] = log.logged[log.chosen]
    elsewhere = np.tile([0.05, 0.05, 0.9], len(log))
    elsewhere[log.chosen[log.taken == 2]] = 0.0
    rest = 1.0 - log.per_decision(elsewhere)
    elsewhere[log.starts] += rest
    reasons = Overlap.of(replace(log, logged=known, target=elsewhere)).reasons
    assert any("never tried, or the logged propensities" in reason for reason in reasons)


def test_propensities_that_are_not_those_of_the_log_are_noticed() -> None:
    log = toy()
    wrong = replace(log, logged=np.tile([0.2, 0.2, 0.6], len(log)))
    assert any("the logged propensities are not those" in reason for reason in Overlap.of(wrong).reasons)
    assert Overlap.of(log).reasons == ()


def test_a_log_that_knows_only_what_was_taken_bears_everything_but_mips() -> None:
    log = toy(feature=(0, 1, 2))
    known = np.full_like(log.logged, np.nan)
    known[log.chosen] = log.logged[log.chosen]
    partly = replace(log, logged=known)
    assert ESTIMATORS["dr"](partly).value == pytest.approx(TRUE_VALUE, abs=1e-9)
    assert math.isnan(Overlap.of(partly).unsupported)
    with pytest.raises(InputError, match="knows the probability of the taken one only"):
        ESTIMATORS["mips"](partly)


def test_a_value_that_rests_on_few_rewards_says_so_and_is_not_withheld() -> None:
    log = toy()
    assert Overlap.of(log).caution == ""
    seldom = replace(log, reward=np.where(np.arange(len(log)) % 80 == 0, 100.0, 0.0))
    found = Overlap.of(seldom)
    assert found.reasons == ()
    earned = (log.weight * seldom.reward)[seldom.reward > 0]
    assert found.rewarded == pytest.approx(earned.sum() ** 2 / (earned**2).sum())
    assert f"rests on about {found.rewarded:.0f} rewards" in found.caution


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"taken": np.full(800, 3)}, "taken names one of the decision's candidates"),
        ({"target": np.full(2400, 0.3)}, "target probabilities of a decision sum to 1"),
        ({"logged": np.full(2400, 0.5)}, "logged probabilities of a decision sum to 1"),
        ({"reward": np.full(800, np.nan)}, "rewards are finite"),
        ({"candidates": np.full(800, 2)}, "one entry per candidate"),
    ],
)
def test_a_log_that_cannot_be_true_is_refused(change: dict[str, np.ndarray], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        replace(toy(), **change)


def test_an_estimator_that_needs_a_model_says_so() -> None:
    with pytest.raises(InputError, match="need a model of the reward"):
        ESTIMATORS["dr"](replace(toy(), predicted=None))
    with pytest.raises(InputError, match="however magic was asked for"):
        evaluate(toy(), ["magic"], seed=1)
