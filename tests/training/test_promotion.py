"""What serves moves only where the gate allows; a bank without a champion never stays without an answer."""

from __future__ import annotations

import pytest

from serving.registry import CHAMPION, PRIOR
from training.promotion.settle import Gate, settle
from training.promotion.verdict import Check, Verdict
from training.track import PRIOR_FOLDER, Tracking


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns') / 'mlflow.db'}")


def registered(tracking: Tracking, model: str, champion: bool = False) -> tuple[str, str]:
    with tracking.run(tracking.experiment(model), "run", {}) as run:
        pass
    return run.id, tracking.register(model, run, champion=champion)


def gate(passed: bool) -> Gate:
    check = Check("calibration", passed, 2.0, 1.5, "probabilities are twice too high")
    return lambda tracking, model, run_id, seed: Verdict(passed, (check,), run_id, None)


def test_what_passes_serves(tracking: Tracking) -> None:
    registered(tracking, "a", champion=True)
    run, version = registered(tracking, "a")
    settled = settle(tracking, "a", run, 0, gate=gate(True))
    assert settled.promoted
    assert f"version {version} is the champion now" in settled.verdict
    assert tracking.named("a", CHAMPION) == (version, run, "model")


def test_what_is_refused_does_not_serve_and_the_reasons_are_told(tracking: Tracking) -> None:
    first, before = registered(tracking, "b", champion=True)
    run, _ = registered(tracking, "b")
    settled = settle(tracking, "b", run, 0, gate=gate(False))
    assert not settled.promoted
    assert "probabilities are twice too high" in settled.verdict
    assert f"version {before} stays the champion" in settled.verdict
    assert tracking.named("b", CHAMPION) == (before, first, "model")
    prior = tracking.named("b", PRIOR)
    assert prior is not None
    assert prior[1] == first, "the prior stands by the champion, it is of the same run"


@pytest.mark.parametrize("unfit", [None, "it was trained for other candidates"])
def test_where_no_champion_can_answer_the_prior_of_a_refused_run_does(tracking: Tracking, unfit: str | None) -> None:
    model = f"c {unfit is None}"
    if unfit is not None:
        registered(tracking, model, champion=True)
    run, version = registered(tracking, model)
    settled = settle(tracking, model, run, 0, unfit, gate(False))
    assert not settled.promoted
    assert (unfit or "there was no champion") in settled.verdict
    serves = tracking.named(model, CHAMPION)
    assert serves is not None
    assert serves[1:] == (run, PRIOR_FOLDER)
    assert serves[0] != version
