"""content-choice through the commands: a bank with an e-mail test of two contents and a group that gets nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from training.cli import nextbest

SENT = datetime(2024, 3, 1, 9, tzinfo=UTC)
CATALOG = """
currency = "EUR"
time_zone = "UTC"

[[channels]]
id = "email"
name = "E-mail"
direction = "outbound"
cost = 0.1

[[contents]]
id = "calm"
channel = "email"
language = "en"
template = "Have a look."

[[contents]]
id = "bold"
channel = "email"
language = "en"
template = "Have a look now!"
"""
CUSTOMERS = 1_800


def write_bank(folder: Path) -> None:
    """Calm works for the old, bold for the young, by lot; everybody buys something by themselves too."""
    draw = np.random.default_rng(0)
    ids = [f"c{number:04d}" for number in range(CUSTOMERS)]
    young, arm = draw.random(CUSTOMERS) < 0.5, draw.integers(3, size=CUSTOMERS)
    chance = np.where(arm == 2, 0.05, np.where((arm == 1) == young, 0.35, 0.05))
    buys = draw.random(CUSTOMERS) < chance
    events: list[dict[str, Any]] = []
    for number, who in enumerate(ids):
        content = (None, None) if arm[number] == 2 else ("email", ("calm", "bold")[arm[number]])
        shared = {"customer_id": who, "event_timestamp": SENT, "decision_id": f"d{number}"}
        event = {"channel": content[0], "content_id": content[1], "purpose": "marketing", "propensity": 1 / 3}
        events.append({**shared, **event, "event_id": f"e{number}", "kind": "decided"})
        if buys[number]:
            at = {"event_timestamp": SENT + timedelta(days=3), "event_id": f"b{number}"}
            events.append({"customer_id": who, **at, "kind": "converted", "value": 20.0})
    folder.mkdir()
    (folder / "catalog.toml").write_text(CATALOG, encoding="utf-8")
    known = {"event_timestamp": SENT - timedelta(days=300), "age": np.where(young, 25, 65)}
    pd.DataFrame({"customer_id": ids, **known}).to_parquet(folder / "customers.parquet")
    pd.DataFrame(events).to_parquet(folder / "timeline.parquet")


def call(home: Path, *arguments: str) -> Result:
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{home.parent}/mlruns/mlflow.db"}
    return CliRunner().invoke(nextbest, [*arguments, "--home", str(home), "--json"], env=environment)


def answer(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contents")
    write_bank(folder / "bank")
    answer(call(folder / "home", "features", "build", str(folder / "bank")))
    return folder / "home"


@pytest.fixture(scope="module")
def trained(home: Path) -> dict[str, Any]:
    return answer(call(home, "train", "content-choice"))


def entities(home: Path, **columns: Any) -> Path:
    file = home.parent / "entities.parquet"
    as_of = pd.Series([SENT + timedelta(days=3)] * 60).astype("datetime64[us, UTC]")
    pd.DataFrame({"customer_id": [f"c{number:04d}" for number in range(60)], "as_of": as_of, **columns}).to_parquet(
        file
    )
    return file


def scores(home: Path, file: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    out = home.parent / "scores.parquet"
    told = answer(call(home, "score", "content-choice", "--entities", str(file), "--out", str(out)))
    return told, pq.read_table(out).to_pandas()


def test_the_run_claims_the_personal_policy_with_its_interval(trained: dict[str, Any]) -> None:
    found = trained["metrics"]
    assert trained["family"] == "lightgbm"
    assert trained["promoted"]
    assert "surely better than the best constant one" in trained["reason"]
    # the right content for everybody: 0.35 × 20 − 0.1; one for all: 0.2 × 20 − 0.1; nobody: 0.05 × 20
    assert found["test/dr_value_low"] < 6.9 < found["test/dr_value_high"]
    low, high = (found[f"test/dr_value_minus_best_constant_{side}"] for side in ("low", "high"))
    assert 0.0 < low < 3.0 < high
    assert found["test/dr_value_no_contact_low"] < 1.0 < found["test/dr_value_no_contact_high"]
    assert found["test/deviates"] == pytest.approx(0.5, abs=0.15)


def test_uplift_of_each_content_and_channel_is_in_the_run_by_all_learners(trained: dict[str, Any]) -> None:
    found = trained["metrics"]
    # the best order of an uplift of 6 in half the rows (and 0 in the others): Qini 6 × ⅛
    for name in ("content.calm/qini", "content.bold/qini", "content.bold/t_qini", "content.bold/dr_qini"):
        assert found[f"uplift/{name}_low"] > 0.2, name
        assert found[f"uplift/{name}"] < 1.2, name
    assert found["uplift/channel.email/effect"] == pytest.approx(3.0, abs=1.0)


def test_every_content_and_no_contact_are_scored_and_ranked_for_everybody(home: Path, trained: dict[str, Any]) -> None:
    told, frame = scores(home, entities(home))
    assert told["version"] == trained["version"] == told["champion_version"]
    assert list(frame.columns) == ["customer_id", "as_of", "content_id", "score", "rank"]
    assert len(frame) == 60 * 3
    assert frame["content_id"].isna().sum() == 60
    assert np.isfinite(frame["score"]).all()
    for _, one in frame.groupby("customer_id"):
        assert one["rank"].tolist() == [1, 2, 3]
        assert one["score"].is_monotonic_decreasing
        assert set(one["content_id"].dropna()) == {"calm", "bold"}
    best = frame[frame["rank"] == 1].set_index("customer_id")["content_id"]
    age = pd.read_parquet(home.parent / "bank" / "customers.parquet").set_index("customer_id")["age"]
    assert (best == np.where(age[best.index] == 25, "bold", "calm")).all()


def test_somebody_nobody_knows_is_scored_too(home: Path, trained: dict[str, Any]) -> None:
    _, frame = scores(home, entities(home, customer_id=[f"new{number}" for number in range(60)]))
    assert len(frame) == 60 * 3
    assert np.isfinite(frame["score"]).all()


def test_the_run_keeps_its_order_its_pictures_and_what_every_arm_earned(home: Path, trained: dict[str, Any]) -> None:
    folder = next((home.parent / "mlruns").rglob(f"{trained['run_id']}/artifacts"))
    kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "model/content.json",
        "model/booster.txt",
        "plots/qini.png",
        "plots/policies.png",
        "order/order.json",
    } <= kept
    arms = json.loads((folder / "uplift" / "arms.json").read_text())
    assert {one["content_id"] for one in arms} == {"calm", "bold", None}
    assert sum(one["decisions"] for one in arms) == CUSTOMERS
    assert sum(one["personal"] for one in arms) == pytest.approx(1.0)


def test_entities_say_whom_to_learn_from(home: Path) -> None:
    file = home.parent / "some.parquet"
    ids = [f"c{number:04d}" for number in range(600)]
    as_of = pd.Series([SENT] * len(ids)).astype("datetime64[us, UTC]")
    pd.DataFrame({"customer_id": ids, "as_of": as_of}).to_parquet(file)
    found = answer(call(home, "train", "content-choice", "--entities", str(file), "--seed", "3"))
    assert found["rows"]["all"] == 600


def test_the_same_seed_gives_the_same_metrics(home: Path, trained: dict[str, Any]) -> None:
    assert answer(call(home, "train", "content-choice"))["metrics"] == trained["metrics"]


def test_options_that_it_does_not_take_are_refused(home: Path) -> None:
    refused = call(home, "train", "content-choice", "--family", "torch")
    assert refused.exit_code == 2
    assert "chooses its own family" in refused.output
