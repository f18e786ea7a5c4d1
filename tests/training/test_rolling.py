"""Rolling refits: nothing of the delay is seen, the refitted model follows where the frozen one decays, and the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from features.errors import InputError
from features.schema import Bool
from training.cli import nextbest
from training.dataset import Dataset
from training.rolling import FROZEN, REFIT, Rolled, Walk, known_when, require_log, roll
from training.rolling_report import document, flat, keep, lines, picture, tell
from training.spine import Spine
from training.track import Tracking

HOUR = 3_600_000_000
WALK = Walk(every=300, delay=100, rounds=10)
LIKELY, RARELY = 0.6, 0.1
TURN = 900


def offers(choice_world: Callable[..., Any], rows: int, taken_if: Callable[[Bool, Bool], Bool]) -> Dataset:
    """One offer of the card per row, an hour apart; `taken_if` gets who has the flag and what comes after the turn.

    It says who takes likely (60 %), the others rarely (10 %).
    """
    world = choice_world(rows, 5)
    flag = world.examples.rows.customer[:, 0] == 1
    draw = np.random.default_rng(6)
    likely = taken_if(flag, np.arange(rows) >= TURN)
    offered = np.zeros((rows, 4), dtype=np.bool_)
    offered[:, 1] = True
    taken = offered & (draw.random(rows) < np.where(likely, LIKELY, RARELY))[:, None]
    as_of = np.arange(rows, dtype=np.int64) * HOUR
    people = np.array([f"c{row % (rows // 2)}" for row in range(rows)], dtype=object)
    spine = Spine(
        people, as_of, as_of + 5 * HOUR, np.full(rows, "decision", dtype=object), offered, np.ones(rows, np.bool_),
        taken, np.full(rows, -1, dtype=np.int64),
    )  # fmt: skip
    return Dataset(world.question, spine, world.examples.rows, offered)


@pytest.fixture(scope="module")
def turning(choice_world: Callable[..., Any]) -> Dataset:
    """A world that turns: first those with the flag take, after a while those without."""
    return offers(choice_world, 3_000, lambda flag, late: flag ^ late)


@pytest.fixture(scope="module")
def rolled(turning: Dataset) -> Rolled:
    return roll(turning, WALK)


def test_the_refitted_model_holds_where_the_frozen_one_decays(rolled: Rolled) -> None:
    told = tell(rolled, seed=0, resamples=100)
    refit, frozen = (np.array(told.by_block[name]["auc"]) for name in (REFIT, FROZEN))
    starts = np.array([block.start for block in rolled.blocks])
    # The best that can be: 30 % of 60 % against 70 % of 10 % first, the other way round later.
    assert frozen[starts < TURN].mean() > 0.7
    assert frozen[starts >= TURN].mean() < 0.35
    assert refit[-2:].mean() > 0.65
    assert told.minus_frozen[REFIT]["auc"].low > 0
    assert told.pooled[REFIT]["log_loss"].mean < told.pooled[FROZEN]["log_loss"].mean
    assert told.pooled[REFIT]["auc"].low < told.pooled[REFIT]["auc"].mean < told.pooled[REFIT]["auc"].high


def test_in_a_world_that_stays_both_do_equally_well(choice_world: Callable[..., Any]) -> None:
    told = tell(roll(offers(choice_world, 2_400, lambda flag, late: flag), WALK), seed=0, resamples=100)
    assert abs(told.minus_frozen[REFIT]["auc"].mean) < 0.03


def test_the_online_bias_mends_a_frozen_model_where_only_the_level_moves(choice_world: Callable[..., Any]) -> None:
    told = tell(roll(offers(choice_world, 3_000, lambda flag, late: late), replace(WALK, half_life=200.0)), 0, 50)
    assert told.minus_frozen["frozen_bias"]["log_loss"].high < 0
    assert told.minus_frozen["frozen_bias"]["auc"].low > 0


@pytest.mark.parametrize("family", ["lightgbm", "prior"])
def test_labels_within_the_delay_change_nothing(turning: Dataset, rolled: Rolled, family: str) -> None:
    """Turn over every outcome from row 1,100 on: what is said up to row 1,200 stays, bit for bit; later it moves."""
    walk = replace(WALK, family=family)
    before = rolled if family == "lightgbm" else roll(turning, walk)
    taken = turning.spine.taken.copy()
    taken[1_100:] = turning.available[1_100:] & ~taken[1_100:]
    after = roll(replace(turning, spine=replace(turning.spine, taken=taken)), walk)
    begin = before.blocks[0].start
    blocks = [block for block in before.blocks if block.known <= 1_100]
    assert blocks[-1].known == 1_100, "the newest block learns up to the border"
    for name, said in before.said.items():
        same = blocks[-1].stop if name in (REFIT, FROZEN) else 1_201
        np.testing.assert_array_equal(said[: same - begin], after.said[name][: same - begin])
        if name != FROZEN:
            assert (said[same - begin :] != after.said[name][same - begin :])[turning.available[same:]].any()


def test_outcomes_are_known_when_enough_decisions_were_made_and_windows_closed() -> None:
    as_of = np.arange(6, dtype=np.int64) * 10
    closes = as_of + np.array([25, 5, 5, 5, 5, 5])
    assert known_when(as_of, closes, 1, windows=False).tolist() == [0, 0, 1, 2, 3, 4]
    assert known_when(as_of, closes, 1, windows=True).tolist() == [0, 0, 0, 2, 3, 4]
    assert known_when(as_of, closes, 2, windows=False).tolist() == [0, 0, 0, 1, 2, 3]


def test_the_same_seed_says_the_same(turning: Dataset, rolled: Rolled) -> None:
    again = roll(turning, WALK)
    for name, said in rolled.said.items():
        np.testing.assert_array_equal(said, again.said[name])


def test_metrics_have_the_names_that_the_docstring_promises(rolled: Rolled) -> None:
    found = flat(tell(rolled, seed=0, resamples=20))
    assert {"rolling/auc", "rolling/auc_low", "rolling/frozen_auc", "rolling/frozen_bias_log_loss"} <= set(found)
    assert {"rolling/auc_minus_frozen_low", "rolling/refit_bias_brier", "rolling/ece"} <= set(found)


def test_too_little_to_begin_with_is_said(turning: Dataset) -> None:
    with pytest.raises(InputError, match="take-ups"):
        roll(turning.take(np.arange(150)), WALK)
    with pytest.raises(InputError, match="--first"):
        roll(turning, replace(WALK, first=50))


def test_the_rate_alone_knows_times_and_no_customer(rolled: Rolled, choice_world: Callable[..., Any]) -> None:
    moving = tell(roll(offers(choice_world, 3_000, lambda flag, late: late), replace(WALK, half_life=200.0)), 0, 20)
    assert moving.pooled["rate"]["auc"].mean > 0.6
    assert abs(moving.gaps["rate"]["auc_within_blocks"] - 0.5) < 0.1
    held = tell(rolled, seed=0, resamples=20)
    assert held.gaps[REFIT]["auc_within_blocks"] > held.gaps["rate"]["auc_within_blocks"]


def test_the_run_keeps_a_step_per_block_and_a_picture(rolled: Rolled, tmp_path: Path) -> None:
    told = tell(rolled, seed=0, resamples=20)
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with tracking.run(tracking.experiment("next-best-product"), "rolling", {"nextbest.part": "rolling"}) as run:
        keep(run, rolled, told, WALK, picture(rolled, told, "a world that turns"))
    data = tracking.client.get_run(run.id).data
    assert data.metrics["rolling/auc"] == told.pooled[REFIT]["auc"].mean
    assert (data.params["every"], data.params["delay"]) == ("300", "100")
    steps = tracking.client.get_metric_history(run.id, "rolling_block/frozen_auc")
    assert [step.step for step in steps] == list(range(len(rolled.blocks)))
    assert [item.path for item in tracking.client.list_artifacts(run.id, "plots")] == ["plots/rolling.png"]
    assert json.dumps(document(rolled, told), allow_nan=False)
    assert len(lines(rolled, told, WALK)) == 3


def test_tables_without_decisions_are_refused() -> None:
    require_log("decisions")
    with pytest.raises(InputError, match="decision_id"):
        require_log("occasions")


def test_the_command_says_what_it_takes() -> None:
    done = CliRunner().invoke(nextbest, ["evaluate", "rolling", "--help"])
    assert done.exit_code == 0
    assert {"--every", "--delay", "--family", "--plot", "--windows"} <= set(done.output.split())
    assert CliRunner().invoke(nextbest, ["evaluate", "rolling", "channel-choice"]).exit_code == 2
