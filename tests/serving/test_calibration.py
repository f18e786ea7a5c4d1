"""Calibration maps: the formula, strictly increasing, kept as JSON."""

from __future__ import annotations

import numpy as np
import pytest

from serving.calibration import IDENTITY, Calibration

BETA = Calibration("beta", (0.7, 1.8, -0.3), "40 taken, 60 not taken")
SHARP = Calibration("temperature", (0.5,), "100 choices")
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


@pytest.mark.parametrize("calibration", [IDENTITY, BETA, SHARP])
def test_certainty_and_absence_survive(calibration: Calibration) -> None:
    mapped = calibration.apply(np.array([[0.0, 1.0, np.nan], [np.nan, np.nan, np.nan]]))
    assert np.isfinite(mapped[0, :2]).all()
    np.testing.assert_allclose(mapped[0, :2], [0, 1], atol=1e-9)
    assert np.isnan(mapped[1]).all()
    assert np.isnan(mapped[0, 2])


@pytest.mark.parametrize("calibration", [IDENTITY, BETA, SHARP])
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
    ],
)
def test_a_map_that_does_not_increase_is_refused(kind: str, parameters: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="calibration"):
        Calibration(kind, parameters)  # type: ignore[arg-type]  # wrong on purpose
