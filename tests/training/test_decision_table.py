"""Tables of decisions as input: both forms give the estimates one can write down, and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.errors import InputError
from training.policies.decision_table import read_table
from training.policies.off_policy import ESTIMATORS, possible

LOGGED, TARGET, REWARD = (4 / 8, 2 / 8, 2 / 8), (0.1, 0.3, 0.6), (1.0, 5.0, 2.0)
PREDICTED = (2.0, 3.0, 3.0)
TRUE_VALUE = 0.1 * 1 + 0.3 * 5 + 0.6 * 2
TAKEN = [0, 0, 0, 0, 1, 1, 2, 2] * 40
"""Every action exactly as often as the logging policy takes it, so unbiased estimators give the truth itself."""


def per_decision(**columns: Any) -> pd.DataFrame:
    known = {
        "customer_id": [f"c{place}" for place in range(len(TAKEN))],
        "reward": [REWARD[action] for action in TAKEN],
        "propensity": [LOGGED[action] for action in TAKEN],
        "target_propensity": [TARGET[action] for action in TAKEN],
    }
    return pd.DataFrame({**known, **columns})


def per_candidate(**columns: Any) -> pd.DataFrame:
    n = len(TAKEN)
    known = {
        "decision_id": np.repeat([f"d{place}" for place in range(n)], 3),
        "candidate": ["a", "b", "c"] * n,
        "taken": (np.repeat(TAKEN, 3) == np.tile(range(3), n)),
        "logged": np.tile(LOGGED, n),
        "target": np.tile(TARGET, n),
        "reward": np.where(np.repeat(TAKEN, 3) == np.tile(range(3), n), np.tile(REWARD, n), np.nan),
        "predicted": np.tile(PREDICTED, n),
        "kind": ["x", "x", "y"] * n,
    }
    return pd.DataFrame({**known, **columns})


def written(folder: Path, frame: pd.DataFrame, name: str = "table.parquet") -> Path:
    path = folder / name
    frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_one_row_per_decision_bears_the_estimators_without_a_model(name: str, tmp_path: Path) -> None:
    log = read_table(written(tmp_path, per_decision(), name)).log
    assert possible(log) == ["ips", "snips"]
    for estimator in ("ips", "snips"):
        assert ESTIMATORS[estimator](log).value == pytest.approx(TRUE_VALUE, abs=1e-9)


def test_two_predictions_bear_the_model_based_estimators(tmp_path: Path) -> None:
    mean = float(np.dot(TARGET, PREDICTED))
    table = per_decision(predicted=[PREDICTED[action] for action in TAKEN], predicted_target=mean)
    log = read_table(written(tmp_path, table)).log
    assert possible(log) == ["ips", "snips", "dm", "dr", "switch-dr", "dros"]
    assert ESTIMATORS["dm"](log).value == pytest.approx(mean, abs=1e-9)
    assert ESTIMATORS["dr"](log).value == pytest.approx(TRUE_VALUE, abs=1e-9)


def test_both_forms_of_one_log_give_the_same_estimates(tmp_path: Path) -> None:
    mean = float(np.dot(TARGET, PREDICTED))
    short = per_decision(predicted=[PREDICTED[action] for action in TAKEN], predicted_target=mean)
    one = read_table(written(tmp_path, short, "one.csv")).log
    shuffled = per_candidate().sample(frac=1.0, random_state=1)
    other = read_table(written(tmp_path, shuffled, "other.csv"), feature="kind").log
    assert possible(other) == list(ESTIMATORS), "with every candidate's probability all of them"
    for name in possible(one):
        assert ESTIMATORS[name](other).value == pytest.approx(ESTIMATORS[name](one).value, abs=1e-9)
    shared = [(0.1 + 0.3) / (6 / 8), 0.6 / (2 / 8)]  # weights of the kinds x and y
    mips = np.mean([shared[int(action == 2)] * REWARD[action] for action in TAKEN])
    assert ESTIMATORS["mips"](other).value == pytest.approx(mips, abs=1e-9)


def test_a_target_that_takes_for_sure_what_was_taken_leaves_nothing_for_the_rest(tmp_path: Path) -> None:
    sure = per_decision(target_propensity=1.0, predicted=2.0, predicted_target=2.0)
    assert ESTIMATORS["dm"](read_table(written(tmp_path, sure)).log).value == pytest.approx(2.0)
    with pytest.raises(InputError, match="equals predicted where target_propensity is 1"):
        read_table(written(tmp_path, sure.assign(predicted_target=3.0)))


def test_without_customers_each_decision_is_one_and_with_them_they_are_what_is_drawn(tmp_path: Path) -> None:
    alone = read_table(written(tmp_path, per_decision().drop(columns="customer_id"))).log
    assert len(set(alone.customer_id)) == len(alone)
    two = read_table(written(tmp_path, per_decision(customer_id=[1, 2] * (len(TAKEN) // 2)), "two.csv")).log
    assert set(two.customer_id) == {"1", "2"}, "numbers in a file are ids all the same"


def test_groups_are_those_of_the_taken_candidates(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, per_candidate()), by="kind")
    assert table.groups is not None
    assert table.groups.tolist() == ["y" if action == 2 else "x" for action in TAKEN]
    part = table.log.only(table.groups == "y")
    assert len(part) == 80
    assert part.weight.tolist() == [0.6 / 0.25] * 80


def test_one_row_per_candidate_may_know_the_taken_ones_probability_only(tmp_path: Path) -> None:
    table = per_candidate()
    table.loc[~table["taken"], "logged"] = np.nan
    log = read_table(written(tmp_path, table), feature="kind").log
    assert not log.fully_logged
    assert "mips" not in possible(log)


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        (per_decision().drop(columns="propensity"), "lacks propensity"),
        (per_decision().iloc[:0], "has none"),
        (per_decision(propensity=[0.0] + [0.5] * 319), "propensity lies above 0 .* the first is row 1 with 0.0"),
        (per_decision(target_propensity=[0.5] * 319 + [1.2]), "1 rows break it, the first is row 320 with 1.2"),
        (per_decision(reward=["much"] + ["1"] * 319), "reward is a finite number.* row 1 with much"),
        (per_decision(reward=[1.0, None] + [1.0] * 318), "reward is a finite number.* row 2"),
        (per_decision(predicted=1.0), "there is only predicted"),
        (per_decision(customer_id=[None] + ["c"] * 319), "customer_id is never empty"),
        (per_candidate(taken=False), "taken is true for exactly one candidate"),
        (per_candidate(taken="perhaps"), "taken is true or false"),
        (per_candidate(candidate="a"), "candidate is named once in its decision.* row 2"),
        (per_candidate(logged=np.nan), "logged of what was taken is known and above 0"),
        (per_candidate(target=0.5), "target probabilities of a decision sum to 1"),
        (per_candidate(logged=0.5), "logged probabilities of a decision sum to 1"),
        (per_candidate(reward=np.nan), "reward is a finite number"),
    ],
)
def test_a_table_that_cannot_be_true_is_refused_with_its_first_row(
    table: pd.DataFrame, rule: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rule):
        read_table(written(tmp_path, table))


def test_what_is_asked_of_a_table_must_be_there(tmp_path: Path) -> None:
    path = written(tmp_path, per_decision(age=1))
    with pytest.raises(InputError, match=r"--by is a column .* it has no segment"):
        read_table(path, by="segment")
    with pytest.raises(InputError, match="--feature needs one row per candidate"):
        read_table(path, feature="age")
    with pytest.raises(InputError, match="there is none at"):
        read_table(tmp_path / "nowhere.csv")
    broken = tmp_path / "broken.parquet"
    broken.write_text("not parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(broken)
