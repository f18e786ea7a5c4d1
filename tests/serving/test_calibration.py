"""Calibration maps: the formula, strictly increasing, kept as JSON."""

from __future__ import annotations

import numpy as np
import pytest

from serving.calibration import IDENTITY, Calibration

BETA = Calibration("beta", (0.7, 1.8, -0.3), "40 taken, 60 not taken")
SHARP = Calibration("temperature", (0.5,), "100 choices")
STEPPED = Calibration("isotonic", (-3.0, -1.0, 0.5, -4.0, -0.5, 0.0), "400 taken, 600 not taken")
OWN = Calibration("beta", (0.7, 1.8, -0.3), "many", ((0.2, 1.1),))
RAW = Calibration("none", (), "3 taken, 60 not taken: fewer than 30")
ALL = (IDENTITY, BETA, SHARP, STEPPED, OWN, RAW)
GRID = np.linspace(1e-6, 1 - 1e-6, 1001)[:, None]


def test_beta_is_the_published_formula() -> None:
    p = 0.2
    odds = np.exp(-0.3) * p**0.7 / (1 - p) ** 1.8  # Kull et al. (2017), equation for the odds
    np.testing.assert_allclose(BETA.apply(np.array([[p]])), odds / (1 + odds))


def test_beta_of_one_one_zero_changes_nothing() -> None:
    np.testing.assert_allclose(Calibration("beta", (1.0, 1.0, 0.0)).apply(GRID), GRID, rtol=1e-9)


@pytest.mark.parametrize("parameters", [(0.7, 1.8, -0.3), (0.05, 20.0, 5.0), (20.0, 0.05, -5.0)])
def test_beta_is_increasing_and_stays_in_range(parameters: tuple[float, ...]) -> None:
    mapped = Calibration("beta", parameters).apply(GRID)
    assert (np.diff(mapped[:, 0]) >= 0).all()
    assert mapped.min() >= 0
    assert mapped.max() <= 1


def test_beta_is_strictly_increasing_where_models_answer() -> None:
    assert (np.diff(BETA.apply(np.geomspace(1e-9, 0.999, 1000)[:, None])[:, 0]) > 0).all()


def test_temperature_sharpens_and_keeps_the_sum() -> None:
    mapped = SHARP.apply(np.array([[0.6, 0.3, 0.1, np.nan]]))
    np.testing.assert_allclose(mapped, [[0.36 / 0.46, 0.09 / 0.46, 0.01 / 0.46, np.nan]])


@pytest.mark.parametrize("calibration", ALL)
def test_certainty_and_absence_survive(calibration: Calibration) -> None:
    mapped = calibration.apply(np.array([[0.0, 1.0, np.nan], [np.nan, np.nan, np.nan]]))
    assert np.isfinite(mapped[0, :2]).all()
    np.testing.assert_allclose(mapped[0, :2], [0, 1], atol=1e-9)
    assert np.isnan(mapped[1]).all()
    assert np.isnan(mapped[0, 2])


def test_isotonic_goes_through_its_knots_and_as_steep_as_the_raw_logit_beyond() -> None:
    logits = np.array([[-5.0], [-3.0], [-2.0], [0.5], [2.0]])
    mapped = STEPPED.apply(1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(np.log(mapped / (1 - mapped)), [[-6.0], [-4.0], [-2.25], [0.0], [1.5]], atol=1e-12)


@pytest.mark.parametrize("calibration", [STEPPED, OWN])
def test_ties_are_not_made(calibration: Calibration) -> None:
    assert (np.diff(calibration.apply(np.geomspace(1e-9, 0.999, 1000)[:, None])[:, 0]) > 0).all()


def test_each_candidate_has_its_own_level_and_slope() -> None:
    own = Calibration("identity", by_candidate=((0.5, 2.0), (0.0, 1.0)))
    logit = np.log(0.2 / 0.8)
    np.testing.assert_allclose(own.apply(np.array([[0.2, 0.2]])), [[1 / (1 + np.exp(-(0.5 + 2 * logit))), 0.2]])


def test_own_levels_beside_a_temperature_keep_the_sum() -> None:
    own = Calibration("temperature", (1.0,), "", ((0.0, 1.0), (np.log(3.0), 1.0), (0.0, 1.0)))
    np.testing.assert_allclose(own.apply(np.array([[0.25, 0.25, 0.5]])), [[1 / 6, 3 / 6, 2 / 6]])


def test_scores_without_evidence_stay_as_they_are_and_say_that_they_are_no_probabilities() -> None:
    assert RAW.apply(GRID) is GRID
    assert (RAW.scale, RAW.gives_probabilities) == ("uncalibrated", False)
    told = "q is uncalibrated: its scores rank, they are no probabilities (3 taken, 60 not taken: fewer than 30)"
    assert RAW.note("q") == told
    assert [one.note("q") for one in ALL[:-1]] == [""] * 5
    assert {one.scale for one in ALL[:-1]} == {"probability"}


def test_what_was_left_alone_for_want_of_evidence_by_older_versions_gives_no_probabilities() -> None:
    old = '{"evidence": "3 taken, 9 not taken: fewer than 30", "kind": "identity", "parameters": []}'
    assert Calibration.from_json(old).kind == "none"
    old = '{"evidence": "40 taken, 60 not taken", "kind": "beta", "parameters": [0.7, 1.8, -0.3]}'
    assert Calibration.from_json(old).apply(GRID).tolist() == BETA.apply(GRID).tolist()


@pytest.mark.parametrize("calibration", ALL)
def test_json_keeps_every_bit(calibration: Calibration) -> None:
    assert Calibration.from_json(calibration.to_json()) == calibration


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("beta", (1.0, 1.0)),
        ("beta", (0.0, 1.0, 0.0)),
        ("beta", (1.0, -1.0, 0.0)),
        ("beta", (1.0, 1.0, np.nan)),
        ("temperature", (0.0,)),
        ("temperature", ()),
        ("identity", (1.0,)),
        ("isotonic", ()),
        ("isotonic", (0.0, 1.0, 2.0)),
        ("isotonic", (0.0, 1.0, 2.0, 2.0)),
        ("isotonic", (1.0, 0.0, 1.0, 2.0)),
        ("none", (1.0,)),
        ("platt", ()),
    ],
)
def test_a_map_that_does_not_increase_is_refused(kind: str, parameters: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(kind, parameters)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("kind", "own"), [("identity", ((0.0, 0.0),)), ("identity", ((np.inf, 1.0),)), ("none", ((0.0, 1.0),))]
)
def test_a_candidate_whose_map_does_not_increase_is_refused(kind: str, own: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(kind, (), "", own)  # type: ignore[arg-type]  # wrong on purpose
