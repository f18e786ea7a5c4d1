"""Fitting calibration: recovers a known distortion, keeps quiet on little evidence, asks the right rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.schema import Float32, Float64, Rows
from serving.question import masked_log_softmax
from training.examples import Examples
from training.fit_calibration import fit_calibration


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


def test_what_is_calibrated_stays_nearly_as_it_is(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(20_000)
    calibration = fit_calibration(question, Told(truth.astype(np.float32)), examples)
    assert calibration.parameters == pytest.approx((1, 1, 0), abs=0.15)


def test_without_outside_option_the_temperature_is_found(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(5000, outside=False)
    calibration = fit_calibration(question, Told((truth * 2.5).astype(np.float32)), examples)
    assert calibration.kind == "temperature"
    assert calibration.parameters[0] == pytest.approx(2.5, rel=0.1)


def test_little_evidence_leaves_probabilities_as_they_are_and_says_so(drawn: Callable[..., Any]) -> None:
    question, examples, truth = drawn(100, level=5.0)
    calibration = fit_calibration(question, Told((truth * 3).astype(np.float32)), examples)
    assert calibration.kind == "identity"
    assert "fewer than" in calibration.evidence
    question, examples, truth = drawn(20, outside=False)
    assert fit_calibration(question, Told(truth.astype(np.float32)), examples).kind == "identity"


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
