"""Fitting calibration: recovers a known distortion, keeps quiet on little evidence, asks the right rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.schema import Float32, Float64, Rows
from serving.calibration import Calibration
from serving.question import masked_log_softmax
from training import shrunken
from training.calibration_maps import beta_parameters, isotonic_knots
from training.examples import Examples
from training.fit_calibration import calibrate, fit_calibration


@dataclass(frozen=True)
class Told:
    """A scorer that says what it is told."""

    says: Float32
    family: str = "told"

    def utilities(self, rows: Rows) -> Float32:
        return self.says[: len(rows)]

    def save(self, folder: Path) -> None: ...


@pytest.fixture
def drawn(choice_world: Callable[..., Any]) -> Callable[..., tuple[Any, Examples, Float64]]:
    """A world whose choices are drawn from random true utilities [n, 5], which come with it."""

    def make(rows: int, level: float = 2.0, **kind: Any) -> tuple[Any, Examples, Float64]:
        world = choice_world(rows, 1, **kind)
        draw = np.random.default_rng(0)
        truth = draw.normal(size=(rows, 5))
        truth[:, 4] = level
        log_shares = masked_log_softmax(truth, world.examples.available)
        option = (log_shares + draw.gumbel(size=truth.shape)).argmax(axis=1)
        return world.question, replace(world.examples, chosen=np.eye(5, dtype=np.float32)[option]), truth

    return make


def gap(probabilities: Float64, taken: Any) -> float:
    """Largest difference between average probability and rate over ten equal groups."""
    known = np.isfinite(probabilities)
    order = np.argsort(probabilities[known])
    groups = zip(np.array_split(probabilities[known][order], 10), np.array_split(taken[known][order], 10), strict=True)
    return max(abs(p.mean() - t.mean()) for p, t in groups)


@pytest.mark.parametrize("link", ["joint", "each"])
def test_overconfident_probabilities_are_brought_back(link: str, drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(20_000, link=link)
    scorer = Told((truth * 2.0 + [0, 0, 0, 0, 1]).astype(np.float32))
    calibration = fit_calibration(question, scorer, examples)
    assert calibration.kind == "beta"
    raw = question.probabilities(scorer.says, examples.available[:, :-1])
    taken = examples.chosen[:, :-1] > 0
    assert gap(raw, taken) > 0.08
    assert gap(calibration.apply(raw), taken) < 0.02


def test_what_is_calibrated_stays_as_it_is(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(5_000)
    found = calibrate(question, Told(truth.astype(np.float32)), examples)
    assert (found.calibration.kind, found.calibration.by_candidate) == ("identity", ())
    assert found.numbers["log_loss"] == found.numbers["log_loss_raw"]


def test_without_outside_option_the_temperature_is_found(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(5000, outside=False)
    calibration = fit_calibration(question, Told((truth * 2.5).astype(np.float32)), examples)
    assert calibration.kind == "temperature"
    assert calibration.parameters[0] == pytest.approx(2.5, rel=0.1)


def test_little_evidence_leaves_probabilities_as_they_are_and_says_so(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(100, level=5.0)
    calibration = fit_calibration(question, Told((truth * 3).astype(np.float32)), examples)
    assert calibration.kind == "none"
    assert "fewer than" in calibration.evidence
    question, examples, truth = drawn(20, outside=False)
    assert fit_calibration(question, Told(truth.astype(np.float32)), examples).kind == "none"


@pytest.mark.parametrize("seed", range(5))
def test_few_positives_do_not_explode(seed: int, drawn: Callable[..., Any]) -> None:
    """Forty positives that happen to be separable from everything else: still no certainty."""
    question, examples, _ = drawn(400)
    chosen = np.zeros_like(examples.chosen)
    chosen[:, 4] = 1
    first = np.flatnonzero(examples.available[:, 0])[:40]
    chosen[first, 4], chosen[first, 0] = 0, 1
    says = np.random.default_rng(seed).normal(size=(400, 5)) - 3
    says[first, 0] = 1.0
    calibration = fit_calibration(question, Told(says.astype(np.float32)), replace(examples, chosen=chosen))
    a, b, c = calibration.parameters
    assert 1 / 4 < a < 4
    assert 1 / 4 < b < 4
    assert abs(c) < 4
    raw = question.probabilities(says, examples.available[:, :-1])
    assert np.nanmax(calibration.apply(raw)) < 0.9995


def test_rows_that_could_not_choose_nothing_are_left_out(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(4000)
    available, chosen = examples.available.copy(), examples.chosen.copy()
    occasions = np.arange(4000) >= 2000
    available[occasions, 4] = False
    chosen[occasions] = [1, 0, 0, 0, 0]
    mixed = fit_calibration(
        question, Told(truth.astype(np.float32)), replace(examples, available=available, chosen=chosen)
    )
    alone = fit_calibration(question, Told(truth.astype(np.float32)), examples.take(slice(0, 2000)))
    assert mixed == alone


def test_where_no_row_could_choose_nothing_all_count(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(2000, outside=False)
    calibration = fit_calibration(replace(question, outside=True), Told(truth.astype(np.float32)), examples)
    assert calibration.kind == "beta"


def test_everything_taken_within_the_horizon_counts_not_only_the_share(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(4000)
    taken = examples.chosen[:, :-1] > 0
    scorer = Told(truth.astype(np.float32))
    more = taken | (np.random.default_rng(0).random(taken.shape) < 0.2)
    level = [
        np.nanmean(
            fit_calibration(question, scorer, replace(examples, taken=labels)).apply(
                question.probabilities(scorer.says, examples.available[:, :-1])
            )
        )
        for labels in (taken, more)
    ]
    assert level[1] > level[0] + 0.1


def test_the_labels_of_what_is_not_available_do_not_count(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(2000)
    scorer = Told(truth.astype(np.float32))
    taken = examples.chosen[:, :-1] > 0
    one = fit_calibration(question, scorer, replace(examples, taken=taken))
    two = fit_calibration(question, scorer, replace(examples, taken=taken | ~examples.available[:, :-1]))
    assert one == two


# --- which map, and how well it does ------------------------------------------------------------------------------


def test_levels_that_differ_by_candidate_are_found_and_shrunken(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(6000)
    wrong = np.array([1.0, -1.0, 0.5, -0.5, 0.0])
    found = calibrate(question, Told((truth + wrong).astype(np.float32)), examples)
    assert len(found.calibration.by_candidate) == 4
    raw = question.probabilities(truth + wrong, examples.available[:, :-1])
    said, taken = found.calibration.apply(raw), examples.chosen[:, :-1] > 0
    for place in range(4):
        known = np.isfinite(said[:, place])
        assert said[known, place].mean() == pytest.approx(taken[known, place].mean(), rel=0.05)
    assert found.numbers["log_loss_minus_raw_high"] < 0


def test_candidates_that_do_not_differ_stay_alike() -> None:
    draw = np.random.default_rng(3)
    logit = draw.normal(-2, 1, size=(4000, 6))
    taken = draw.random(logit.shape) < 1 / (1 + np.exp(-logit))
    found = shrunken.by_candidate(logit, taken, np.ones(4000))
    assert all(abs(offset) < 0.12 and abs(slope - 1) < 0.08 for offset, slope in found)


def test_a_candidate_with_little_evidence_is_drawn_to_the_others() -> None:
    draw = np.random.default_rng(4)
    level = np.array([1.0, -1.0, 0.8, -0.8, 3.0])
    logit = np.full((6000, 5), -2.0)
    logit[40:, 4] = np.nan
    taken = draw.random(logit.shape) < 1 / (1 + np.exp(-(logit + level)))
    found = shrunken.by_candidate(logit, taken, np.ones(6000))
    raised = np.array([offset - 2.0 * slope + 2.0 for offset, slope in found])
    np.testing.assert_allclose(raised[:4], level[:4], atol=0.12)
    alone = np.log(taken[:40, 4].mean() / (1 - taken[:40, 4].mean())) + 2.0
    assert 0.5 < raised[4] < alone


def test_variance_between_is_that_of_the_true_values() -> None:
    draw = np.random.default_rng(5)
    information = draw.uniform(5, 50, 4000)
    noise = draw.normal(size=4000) / np.sqrt(information)
    assert shrunken.variance_between(draw.normal(0, 0.5, 4000) + noise, information) == pytest.approx(0.25, rel=0.1)
    assert shrunken.variance_between(noise, information) == pytest.approx(0.0, abs=0.005)
    assert shrunken.variance_between(np.array([3.0]), np.array([1.0])) == 0.0


def test_a_shape_that_beta_cannot_have_becomes_isotonic(drawn: Callable[..., Any]) -> None:
    """Hardly ever below, nearly always above: a cliff, and level on both sides."""
    draw = np.random.default_rng(0)
    said = draw.uniform(0.01, 0.99, 20_000)
    taken = draw.random(20_000) < np.where(said < 0.4, said / 8, np.where(said < 0.6, 0.05, 0.9))
    weight = np.ones(20_000)
    knots = isotonic_knots(said, taken, weight)
    mapped = Calibration("isotonic", knots).apply(said[:, None])[:, 0]
    beta = Calibration("beta", beta_parameters(said, taken, weight)).apply(said[:, None])[:, 0]
    assert gap(mapped, taken) < 0.03
    assert gap(beta, taken) > 3 * gap(mapped, taken)


def test_a_rate_that_never_rises_has_no_isotonic_map() -> None:
    said = np.linspace(0.1, 0.9, 1000)
    assert isotonic_knots(said, np.arange(1000) < 400, np.ones(1000)) == ()


def test_customers_that_the_map_was_not_fitted_on_judge_it(drawn: Callable[..., Any]) -> None:
    """Every customer is there ten times. Were rows dealt out, each would be judged by a map fitted on its copies."""
    question, examples, truth = drawn(400, level=1.0)
    copies = np.tile(np.arange(400), 10)
    scorer = Told(np.tile(truth, (10, 1)).astype(np.float32))
    customers = copies.astype(str).astype(object)
    judged = calibrate(question, scorer, examples.take(copies), customers).numbers
    dealt = calibrate(question, scorer, examples.take(copies)).numbers
    assert dealt["log_loss"] < dealt["log_loss_raw"], "it has learned its copies by heart"
    assert judged["log_loss"] > dealt["log_loss"]


def test_the_chosen_map_is_never_worse_than_none_by_what_is_cross_fitted(drawn: Callable[..., Any]) -> None:
    draw = np.random.default_rng(7)
    for scale in (0.3, 1.0, 3.0):
        question, examples, truth = drawn(800)
        says = truth * scale + draw.normal(size=truth.shape)
        numbers = calibrate(question, Told(says.astype(np.float32)), examples).numbers
        assert numbers["log_loss"] <= numbers["log_loss_raw"]
        assert numbers["log_loss_minus_raw"] == pytest.approx(numbers["log_loss"] - numbers["log_loss_raw"])


def test_own_levels_that_worsen_the_order_at_purchases_are_left_out(drawn: Callable[..., Any]) -> None:
    """On all days the scores are wrong by candidate; at purchases they are right as they are."""
    question, examples, truth = drawn(6000)
    wrong = np.array([1.0, -1.0, 0.5, -0.5, 0.0])
    scorer = Told((truth + wrong).astype(np.float32))
    available = examples.available[:, :-1]
    raw = np.where(available, question.probabilities(truth + wrong, available), -1.0)
    first = np.eye(4, dtype=bool)[raw.argmax(axis=1)]
    free = calibrate(question, scorer, examples, None, _ranked(examples, available, examples.chosen[:, :-1] > 0))
    held = calibrate(question, scorer, examples, None, _ranked(examples, available, first))
    assert free.calibration.by_candidate
    assert not held.calibration.by_candidate


def _ranked(examples: Examples, available: Any, taken: Any) -> Any:
    """What of a dataset says whose order counts."""
    ids = np.array([f"c{row}" for row in range(len(examples))], dtype=object)
    return Order(examples.rows, available, taken, ids)


@dataclass(frozen=True)
class Order:
    rows: Rows
    available: Any
    taken: Any
    customer_id: Any

    def __len__(self) -> int:
        return len(self.customer_id)
