"""The whole product as its users meet it: real processes, the real server, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.launch import free_port

NEXTBEST = [sys.executable, "-m", "training.cli"]
ROOT = Path(__file__).resolve().parents[1]
MODELS = {"next-best-product", "channel-choice", "content-choice", "send-time"}


def environment(folder: Path) -> dict[str, str]:
    tracking = f"sqlite:///{folder}/mlruns/mlflow.db"
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NEXTBEST_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": tracking,
    }


def run(folder: Path, *arguments: str | Path) -> Any:
    """The JSON answer of a command that must succeed."""
    command = [*NEXTBEST, *map(str, arguments), "--json"]
    done = subprocess.run(command, env=environment(folder), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def killed(folder: Path, after: float, *arguments: str | Path) -> bool:
    """Start a command and kill -9 all of it after so many seconds; False if it was faster."""
    process = subprocess.Popen(
        [*NEXTBEST, *map(str, arguments)],
        env=environment(folder),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after)
    early = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL) if early else None
    process.wait()
    return early


def metrics_of(report: Any) -> dict[str, Any]:
    return {trained["model"]: {"family": trained["family"], **trained["metrics"]} for trained in report["trained"]}


def post(url: str, body: dict[str, object], headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def whole_job(simulated_bank: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, "run", simulated_bank)


@pytest.fixture(scope="module")
def server(whole_job: tuple[Path, Any]) -> Iterator[str]:
    folder, _ = whole_job
    port = free_port()
    process = subprocess.Popen(
        [*NEXTBEST, "serve", "--port", str(port)],
        env=environment(folder),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, "the server ended"
        try:
            with direct.open(f"{url}/readyz", timeout=5) as answer:
                assert answer.status == 200
                break
        except OSError:
            assert time.monotonic() < deadline, "the server was not ready in two minutes"
            time.sleep(0.2)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, "SIGTERM ends the server cleanly"


def test_one_command_trains_registers_and_serves_decisions(whole_job: tuple[Path, Any]) -> None:
    _, report = whole_job
    assert {trained["model"] for trained in report["trained"]} == MODELS
    assert report["left_out"] == {}
    assert len(report["served"]) == 5
    for served in report["served"]:
        decision = served["decision"]
        assert 0 < decision["propensity"] <= 1
        assert decision["degraded"] is False, decision["degraded_because"]
        timing = {"send-time"} if decision["action"] else set()
        assert set(decision["versions"]["models"]) == {"next-best-product", "channel-choice"} | timing
        if decision["action"]:
            assert decision["send_at"] == decision["chain"][0]["send_at"] >= served["as_of"][:19]
            assert decision["action"]["text"], "an action carries its rendered text"


@pytest.mark.proof  # two whole jobs: a minute and a half
def test_a_killed_job_run_again_gives_the_result_of_an_undisturbed_one(
    whole_job: tuple[Path, Any], simulated_bank: Path, tmp_path: Path
) -> None:
    _, undisturbed = whole_job
    assert killed(tmp_path, 9.0, "run", simulated_bank)
    again = run(tmp_path, "run", simulated_bank)
    assert metrics_of(again) == metrics_of(undisturbed)
    assert again["left_out"] == undisturbed["left_out"]


def test_score_writes_what_the_interface_says_and_never_a_held_product(
    whole_job: tuple[Path, Any], simulated_bank: Path
) -> None:
    folder, report = whole_job
    customers = pq.read_table(simulated_bank / "customers.parquet")["customer_id"].unique().to_pylist()[:50]
    as_of = pa.array([report["data_end"]] * 51).cast(pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"customer_id": [*customers, "a stranger"], "as_of": as_of}), folder / "who.parquet")
    for model, candidate in (("next-best-product", "product_id"), ("channel-choice", "channel")):
        run(folder, "score", model, "--entities", folder / "who.parquet", "--out", folder / "out.parquet")
        scores = pq.read_table(folder / "out.parquet").to_pandas()
        assert list(scores.columns) == ["customer_id", "as_of", candidate, "score", "rank"]
        assert set(scores.customer_id) == {*customers, "a stranger"}, "every entity has its rows, strangers too"
        assert scores.score.between(0, 1).all()
        best_first = scores.sort_values(["customer_id", "rank"])
        assert best_first.groupby("customer_id")["score"].apply(lambda score: score.is_monotonic_decreasing).all()
        if candidate == "product_id":
            holdings = pq.read_table(simulated_bank / "holdings.parquet").to_pandas().sort_values("event_timestamp")
            last = holdings.drop_duplicates(["customer_id", "product_id"], keep="last")
            held = set(map(tuple, last[last.action == "opened"][["customer_id", "product_id"]].to_numpy()))
            not_holdable = {"term_deposit", "travel_insurance"}
            ranked = set(map(tuple, scores[["customer_id", "product_id"]].to_numpy()))
            assert {pair for pair in ranked & held if pair[1] not in not_holdable} == set()
            assert held & {(who, what) for who in customers for what in set(last.product_id)}, (
                "somebody holds something"
            )


def test_the_server_decides_once_per_idempotency_key(server: str, whole_job: tuple[Path, Any]) -> None:
    served = whole_job[1]["served"][0]
    question = {"customer_id": served["customer_id"], "as_of": served["as_of"]}
    first = post(f"{server}/v1/decide", question, {"Idempotency-Key": "k1"})
    assert first[0] == 200
    assert post(f"{server}/v1/decide", question, {"Idempotency-Key": "k1"}) == first, "byte-equal"
    other = post(f"{server}/v1/decide", {**question, "purpose": "service"}, {"Idempotency-Key": "k1"})
    assert other[0] == 422
    assert json.loads(other[1])["status"] == 422


def test_what_the_server_decided_with_real_models_replays_bit_equal(server: str, whole_job: tuple[Path, Any]) -> None:
    served = whole_job[1]["served"][0]
    question = {"customer_id": served["customer_id"], "as_of": served["as_of"]}
    for path, more in (("decide", {}), ("route", {"product_id": "mortgage", "purpose": "service"})):
        status, answer = post(f"{server}/v1/{path}", {**question, **more})
        assert status == 200
        record = f"{server}/v1/decisions/{json.loads(answer)['decision_id']}?replay=true"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(record, timeout=30) as replayed:
            assert json.load(replayed)["replay"] == {"replayed": True, "equal": True, "different": [], "reason": None}


def test_an_unknown_customer_is_ranked_but_never_contacted(server: str) -> None:
    status, answer = post(f"{server}/v1/decide", {"customer_id": "a stranger"})
    assert status == 200
    decision = json.loads(answer)
    assert decision["action"] is None
    assert [reason["rule"] for reason in decision["reasons"]] == ["unknown_customer"]
    status, answer = post(f"{server}/v1/rank", {"customer_id": "a stranger", "limit": 3})
    assert status == 200
    assert len(json.loads(answer)["products"]) == 3


def test_a_damaged_table_ends_with_exit_code_2_and_nothing_written(simulated_bank: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    bank.mkdir()
    for name in ("catalog.toml", "customers.parquet", "timeline.parquet"):
        (bank / name).write_bytes((simulated_bank / name).read_bytes())
    whole = (bank / "timeline.parquet").read_bytes()
    (bank / "timeline.parquet").write_bytes(whole[: len(whole) // 2])
    done = subprocess.run(
        [*NEXTBEST, "run", str(bank)],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "timeline" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank"], "nothing was written"


def test_a_campaign_is_planned_without_a_violation_and_leaves_its_prices(
    whole_job: tuple[Path, Any], simulated_bank: Path, tmp_path: Path
) -> None:
    folder, _ = whole_job
    customers = sorted(set(pq.read_table(simulated_bank / "customers.parquet")["customer_id"].to_pylist()))[:100]
    at = pa.array([time.time_ns() // 1000] * len(customers), pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"customer_id": customers, "as_of": at}), tmp_path / "who.parquet")
    words = ("campaign", "plan", "--entities", tmp_path / "who.parquet", "--out", tmp_path / "plan.parquet")
    told = run(folder, *words, "--budget", "1", "--days", "2", "--contacts", "2")
    plan = pq.read_table(tmp_path / "plan.parquet").to_pandas()
    assert told["contacts"] == len(plan) > 0
    assert set(told["violations"].values()) == {0}
    assert told["spent"] == pytest.approx(plan["cost"].sum())
    assert plan["cost"].sum() <= 1.0
    assert 0.0 <= told["gap"] < 0.05
    assert not plan.duplicated(["customer_id", "day"]).any()
    prices = json.loads((folder / "home" / "prices.json").read_text("utf-8"))
    assert prices["channels"] == told["channel_prices"]
    (folder / "home" / "prices.json").unlink()  # what other tests decide is not for this campaign
