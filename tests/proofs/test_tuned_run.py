"""A whole tuned run: its trials lie with it, and it is made again to the last bit. Minutes on busy cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.home import Home
from training import fit_lightgbm
from training.plan import Order
from training.rebuild import metrics_of, rebuild
from training.track import Tracking
from training.train import train

pytestmark = pytest.mark.proof


def test_a_tuned_run_keeps_its_trials_and_is_made_again_bit_for_bit(simulated_home: Home, tmp_path: Path) -> None:
    build, tracking = simulated_home.build(), Tracking(f"sqlite:///{tmp_path}/mlflow.db")
    order = Order("next-best-product", "lightgbm", None, 14.0, build.data_end, tune=2)
    run = train(order, build, tracking, {})
    assert any("trials of lightgbm" in note for note in run.notes)
    runs = tracking.client.search_runs([tracking.experiment(order.model)])
    family = next(one for one in runs if one.data.tags.get("nextbest.family") == "lightgbm")
    trials = {one.data.params["trial"]: one for one in runs if one.data.tags.get("nextbest.part") == "trial"}
    assert set(trials) == {"0", "1"}
    for trial in trials.values():
        assert trial.data.tags["mlflow.parentRunId"] == family.info.run_id
        assert set(fit_lightgbm.SPACE) <= set(trial.data.params)
        assert trial.data.metrics["inner/log_loss"] > 0
    assert "valid/calibration/log_loss" in family.data.metrics
    found = rebuild(run.run_id, build, tracking, {})
    assert found.identical, found.differences
    assert "lightgbm: trial 1: inner/log_loss" in metrics_of(tracking, run.run_id)
