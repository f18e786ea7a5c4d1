"""What a decision computes takes few calls: each number is, to the last bit, what the plain formula says."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.arbitration import FACTORS, Arbitration, Arms, Declared, Weight
from features.catalog import Catalog, Channel, Product
from features.schema import Bool, Float32, Float64, Rows, RowSchema
from serving.arms import Lottery
from serving.calibration import SMALLEST, Calibration
from serving.choice import ChoiceModel, Question
from serving.compiled_kernel import address
from serving.policy import Policy, draw, uniform
from serving.scoring import STATIC, Panel, Source
from serving.value import DISTURBANCE_SHARE, REACHABILITY_SHARE, Factors, Worth

SEEDS = range(12)
CATALOG = Catalog(
    "EUR",
    "UTC",
    tuple(Product(f"p{n}", f"P{n}", margin=10.0 + 7.3 * n, group="odd" if n % 2 else "even") for n in range(9)),
    tuple(Channel(f"c{n}", f"C{n}", cost=0.11 * n) for n in range(5)),
)
WEIGHTS = (
    Weight("group", 1.3, group="odd"),
    Weight("both", 0.7, product="p3", channel="c1"),
    Weight("young", 1.9, product="p2", attribute="age", equals="young"),
    Weight("all young", 0.83, attribute="age", equals="young"),
    Weight("old", 0.4, channel="c0", attribute="age", equals="old"),
)
NO_ROWS = RowSchema((), (), (), (), (), "UTC", (), (), ())


def random_worth(draw: np.random.Generator, seed: int) -> Worth:
    """Worth with weights, evidence and rules that differ by seed."""
    rules = Arbitration(
        reachability=None if seed % 2 else 31.0,
        disturbance=0.2 if seed % 3 else None,
        start_propensity=None if seed % 4 else 0.03,
        start_evidence=20.0 if seed % 5 else 0.0,
    )
    take_ups = None if seed % 6 == 5 else draw.choice([0.0, 3.0, 19.0, 20.0, 500.0], 9)
    return replace(
        Worth.of(CATALOG, Declared(rules, WEIGHTS if seed % 2 else ())),
        response=draw.uniform(0.1, 9.0, (9, 5)),
        opt_out=draw.uniform(0.0, 0.01, 5),
        take_ups=take_ups,
        unit="take-ups" if seed == 7 else "EUR",
    )


def smoothed(products: Float64, take_ups: Float64, start: float, propensity: float | None) -> Float64:
    if propensity is None:
        seen = products[np.isfinite(products) & (take_ups >= start) & (take_ups > 0)]
        if not len(seen):
            return products
        propensity = float(seen.mean())
    weight = start + take_ups
    mixed = (start * propensity + take_ups * products) / np.where(weight > 0, weight, 1.0)
    return np.where(np.isnan(products), np.nan, np.where(weight > 0, mixed, products))


def plain_factors(
    worth: Worth, products: Float64, channels: Float64, pairs: np.ndarray, pressure: float, customer: dict[str, object]
) -> Factors:
    """The formula of the module's description, pair by pair where it can be."""
    product, channel = pairs.T
    rules, money = worth.declared.arbitration, 0.0 if worth.unit == "take-ups" else 1.0
    usual = float(np.mean(worth.margins))
    reachability = money * (REACHABILITY_SHARE * usual if rules.reachability is None else rules.reachability)
    disturbance = money * (DISTURBANCE_SHARE * usual if rules.disturbance is None else rules.disturbance)
    if worth.take_ups is not None:
        products = smoothed(products, worth.take_ups, rules.start_evidence, rules.start_propensity)
    tired = np.minimum(worth.opt_out * (1.0 + rules.opt_out_growth * pressure), 1.0)

    def weights(of_customers: bool) -> Float64:
        total = np.ones(len(pairs))
        for weight in worth.declared.weights:
            if (weight.attribute is not None) != of_customers:
                continue
            if of_customers and customer.get(str(weight.attribute)) != weight.equals:
                continue
            for place, (at, by) in enumerate(pairs.tolist()):
                one, via = CATALOG.products[at], CATALOG.channels[by]
                wanted = ((weight.product, one.id), (weight.group, one.group), (weight.channel, via.id))
                total[place] *= weight.weight if all(name in (None, found) for name, found in wanted) else 1.0
        return total

    return Factors(
        propensity=products[product],
        channel=channels[channel],
        response=worth.response[product, channel],
        value=worth.margins[product],
        context=weights(True),
        lever=weights(False),
        cost=worth.costs[channel],
        fatigue=tired[channel] * reachability,
        benefit=worth.margins[product] * rules.benefit_share * money,
        disturbance=np.full(len(pairs), disturbance),
    )


def plain_total(of: Factors, off: tuple[str, ...]) -> Float64:
    def alike(name: str) -> Float64:
        values: Float64 = getattr(of, name)
        return np.full(len(values), values.mean()) if name in off else values

    def neutral(name: str, instead: float) -> Float64:
        values: Float64 = getattr(of, name)
        return np.full(len(values), instead) if name in off else values

    taken = np.minimum(alike("propensity") * alike("channel") * neutral("response", 1.0), 1.0)
    gain = taken * alike("value") * neutral("context", 1.0) * neutral("lever", 1.0)
    bank = gain - neutral("cost", 0.0) - neutral("fatigue", 0.0)
    return bank + (0.0 if "customer" in off else taken * of.benefit - of.disturbance)


@pytest.mark.parametrize("seed", SEEDS)
def test_factors_and_values_are_those_of_the_formula_for_any_pairs(seed: int) -> None:
    draw = np.random.default_rng(seed)
    worth = random_worth(draw, seed)
    for count in (0, 1, 17, 45):
        chosen = np.sort(draw.choice(45, count, replace=False))
        pairs = np.stack([chosen // 5, chosen % 5], axis=1).astype(np.int64)
        products, channels = draw.random(9), draw.random(5)
        products[np.setdiff1d(np.arange(9), pairs[:, 0])] = np.nan
        customer = {"age": str(draw.choice(["young", "old", "none"]))}
        given = (products, channels, pairs, float(draw.choice([0.0, 2.5, 1e9])), customer)
        found, told = worth.factors(*given), plain_factors(worth, *given)
        for one in fields(Factors):
            np.testing.assert_array_equal(getattr(found, one.name), getattr(told, one.name), err_msg=one.name)
        if count:
            for off in ((), *((name,) for name in FACTORS), FACTORS):
                np.testing.assert_array_equal(found.total(off), plain_total(told, off), err_msg=str(off))


def plain_propensities(policy: Policy, values: Float64) -> Float64:
    """Of the policy's description, for an explored set that is everything; no contact comes last."""
    gap, gain, floor = values.max() - values, float(values.max()) - 0.0, policy.epsilon / len(values)
    best = (gap == 0) / (gap == 0).sum()
    if gain <= 0 or (policy.method == "softmax" and policy.temperature == 0):
        base = best
    elif policy.method == "softmax":
        weight = np.exp(-gap / gain / policy.temperature)
        base = weight / weight.sum()
    else:
        base = 1.0 / (len(gap) + policy.gamma * (gap / gain))
        base[int(np.argmin(gap))] += 1.0 - base.sum()
    mixed = floor + max(1.0 - len(values) * floor, 0.0) * (1.0 * base + 0.0 * best)
    return np.asarray(mixed / mixed.sum())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("method", ["softmax", "squarecb"])
def test_propensities_and_what_is_drawn_are_those_of_the_formula(seed: int, method: str) -> None:
    random = np.random.default_rng(seed)
    policy = Policy(float(random.choice([0.0, 0.05, 2.0])), float(random.choice([0.0, 0.05, 1.0])), method)
    for count in (1, 2, 9, 121):
        values = random.normal(random.choice([-3.0, 0.0, 3.0]), 1.0, count).round(int(random.integers(0, 4)))
        values[-1] = 0.0
        before = values.copy()
        found = policy.propensities(values)
        np.testing.assert_array_equal(found, plain_propensities(policy, values))
        np.testing.assert_array_equal(values, before)
        steps = np.cumsum(found)
        steps[np.flatnonzero(found)[-1] :] = 1.0
        for decision in range(20):
            place = np.searchsorted(steps, uniform(f"action\x00{decision}"), side="right")
            assert draw(found, str(decision)) == place


@pytest.mark.parametrize("end", [(0.0, 0.0), ()])
def test_what_rounding_leaves_goes_to_the_last_action_that_is_possible(end: tuple[float, ...]) -> None:
    propensities = np.array([0.4, 0.5, *end])  # as if rounding had left a tenth
    drawn = [draw(propensities, str(number)) for number in range(3_000)]
    assert set(drawn) == {0, 1}
    assert 0.55 < np.mean(drawn) < 0.65


@pytest.mark.parametrize(
    "shares",
    [
        {"agent": 1.0},
        {"holdout": 0.0, "agent": 1.0, "random": 0.0},
        {"agent": 0.7, "random": 0.1, "business_as_usual": 0.15, "holdout": 0.05},
        {"random": 1.0},
    ],
)
def test_the_lotterys_propensities_are_the_sum_over_all_arms(shares: dict[str, float]) -> None:
    agent = Policy(0.3, 0.1).propensities(np.random.default_rng(1).normal(size=121))
    before = agent.copy()
    lots = Lottery(Arms(shares), agent, 3)
    total = sum((share * lots.chances(arm) for arm, share in shares.items()), np.zeros(1))
    np.testing.assert_array_equal(lots.propensities, total / total.sum())
    np.testing.assert_array_equal(agent, before)


@dataclass(frozen=True)
class Told:
    """A scorer that says what it is told."""

    says: Float32
    family: str = "told"

    def utilities(self, rows: Rows) -> Float32:
        return self.says

    def save(self, folder: Path) -> None:
        raise OSError


def rows(count: int) -> Rows:
    nothing = np.zeros((count, 0, 0), dtype=np.float32)
    nobody = np.zeros((count, 0), dtype=np.bool_)
    return Rows(np.zeros((count, 0), dtype=np.float32), nothing, nothing, nobody, nobody, NO_ROWS)


def plain_shares(question: Question, utilities: Float32, available: Bool) -> Float64:
    wide = utilities.astype(np.float64)
    if question.link == "each":
        shares = np.exp(-np.logaddexp(0.0, -(wide[:, :-1] - wide[:, -1:])))
    else:
        options = np.concatenate([available, np.full((len(available), 1), question.outside)], axis=1)
        masked = np.where(options, wide, -np.inf)
        top = masked.max(axis=1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        total = np.exp(masked - top).sum(axis=1, keepdims=True)
        shares = np.exp(masked - top - np.log(np.where(total > 0, total, 1.0)))[:, :-1]
    return np.where(available, shares, np.nan)


def plain_map(calibration: Calibration, raw: Float64) -> Float64:
    def logit_of(p: Float64) -> Float64:
        inside = np.clip(p, SMALLEST, 1 - SMALLEST)
        return np.asarray(np.stack([np.log(inside), -np.log1p(-inside)], axis=-1).sum(axis=-1))

    def shares(logit: Float64) -> Float64:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.exp(-np.logaddexp(0.0, -logit)))

    if calibration.kind == "isotonic":
        x, y = np.array(calibration.parameters).reshape(2, -1)
        logit = logit_of(raw)
        logit = np.interp(logit, x, y) + (np.minimum(logit - x[0], 0.0) + np.maximum(logit - x[-1], 0.0))
    elif calibration.kind == "beta":
        inside = np.clip(raw, SMALLEST, 1 - SMALLEST)
        terms = np.stack([np.log(inside), -np.log1p(-inside)], axis=-1)
        logit = calibration.parameters[2] + terms @ np.array(calibration.parameters[:2])
    else:
        logit = logit_of(raw)
    mapped = raw
    if calibration.by_candidate:
        offset, slope = np.array(calibration.by_candidate).T
        mapped = shares(offset + slope * logit)
    elif calibration.kind in ("isotonic", "beta"):
        mapped = shares(logit)
    if calibration.shifts:
        mapped = shares(logit_of(mapped) + np.array(calibration.shifts))
    return mapped


KNOTS = (-6.0, -3.0, -1.0, 2.0, -5.5, -3.1, -0.5, 1.0)
OWN = tuple((0.3 * n - 1.0, 0.6 + 0.1 * n) for n in range(7))
CALIBRATIONS = (
    Calibration("identity"),
    Calibration("none"),
    Calibration("identity", by_candidate=OWN),
    Calibration("isotonic", KNOTS),
    Calibration("isotonic", KNOTS, by_candidate=OWN, shifts=tuple(0.2 * n for n in range(7))),
    Calibration("beta", (1.3, 0.8, -0.2)),
    Calibration("beta", (1.3, 0.8, -0.2), by_candidate=OWN),
    Calibration("none", shifts=tuple(0.2 * n for n in range(7))),
)


@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda one: f"{one.kind}{len(one.by_candidate)}")
@pytest.mark.parametrize(("link", "outside"), [("each", True), ("joint", True), ("joint", False)])
def test_probabilities_are_those_of_the_formula_whoever_is_beside(
    calibration: Calibration, link: Any, outside: bool
) -> None:
    random = np.random.default_rng(5)
    question = Question("m", tuple("abcdefg"), "product", link, outside, 30.0)
    utilities = random.normal(0, random.choice([0.3, 4.0, 300.0], (60, 1)), (60, 8)).astype(np.float32)
    available = random.random((60, 7)) < random.choice([0.0, 0.6, 1.0], (60, 1))
    told = np.clip(plain_map(calibration, plain_shares(question, utilities, available)), 0.0, 1.0)
    whole = ChoiceModel(question, Told(utilities), calibration, NO_ROWS).probabilities(rows(60), available)
    np.testing.assert_array_equal(whole, told)
    for row in range(60):
        alone = ChoiceModel(question, Told(utilities[[row]]), calibration, NO_ROWS)
        np.testing.assert_array_equal(alone.probabilities(rows(1), available[[row]])[0], told[row])


@dataclass(frozen=True)
class Says:
    """A model that says what it is told, whatever is asked."""

    says: Float64
    row_schema: RowSchema = NO_ROWS

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        return self.says[None, :]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_panel_gives_only_probabilities_of_what_was_asked_and_names_what_it_drops(seed: int) -> None:
    random = np.random.default_rng(seed)
    names = tuple("abcdefg")
    said = random.choice([0.0, 0.3, 1.0, np.nan, np.inf, -np.inf, 1.0 + 1e-15, -1e-300], 7)
    order = random.permutation(7)[: int(random.integers(1, 8))] if seed % 2 else np.arange(7)
    model = Says(said[order])
    panel = Panel("m", names, True, (Source("champion", "1", tuple(names[at] for at in order), model),))
    available = random.random(7) < 0.7
    raw = np.full(7, np.nan)
    raw[order] = said[order]
    usable = available & np.isfinite(raw) & (raw >= 0) & (raw <= 1)
    found = panel.score(lambda schema: rows(1), available)
    assert found.version == ("1" if usable.any() else STATIC)
    if usable.any():
        np.testing.assert_array_equal(found.probabilities, np.where(usable, raw, np.nan))
        assert found.dropped == tuple(name for at, name in enumerate(names) if available[at] and not usable[at])
    np.testing.assert_array_equal(model.says, said[order], err_msg="what a model holds is its own")


def test_an_address_is_the_same_however_it_is_asked_for() -> None:
    block = np.arange(12.0)
    asked = address(block)
    block.setflags(write=False)
    assert asked == address(block) == block.__array_interface__["data"][0]
    assert isinstance(address(np.empty((0, 3))), int)
