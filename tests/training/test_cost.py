"""Costs: what is slower is measured slower, what is larger larger."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.schema import Float32, Rows, RowSchema
from serving.calibration import Calibration
from serving.choice import ChoiceModel
from serving.question import Question
from training.cost import folder_bytes, forget_peak, latencies, latency_metrics, peak_memory_mb

SCHEMA = RowSchema(("a", "b"), (False, False), ("app",), (), (), "UTC", ("x",), ("x",), ("x",))


@dataclass
class Waits:
    """A scorer that takes so many seconds, and knows how many rows it was asked about at a time."""

    seconds: float
    asked: list[int]
    family: str = "waits"

    def utilities(self, rows: Rows) -> Float32:
        self.asked.append(len(rows))
        time.sleep(self.seconds)
        return np.zeros((len(rows), 3), dtype=np.float32)

    def save(self, folder: Path) -> None: ...


def model(seconds: float) -> ChoiceModel:
    question = Question("m", ("a", "b"), "product", "joint", True, 7.0)
    return ChoiceModel(question, Waits(seconds, []), Calibration("identity"), SCHEMA)


def rows(n: int) -> Rows:
    blank, none = np.zeros((n, 2, 1), np.float32), np.zeros((n, 2), dtype=np.bool_)
    return Rows(np.zeros((n, 1), np.float32), blank, blank[:, :1], none, none[:, :1], SCHEMA)


def test_one_customer_is_asked_about_at_a_time_and_the_slower_model_is_slower() -> None:
    quick, slow = model(0.0), model(0.004)
    seen = rows(3)
    shown = np.ones((3, 2), dtype=np.bool_)
    found = latencies({"": quick, "champion_": slow}, {"": seen, "champion_": seen}, shown, calls=30)
    assert isinstance(quick.scorer, Waits)
    assert set(quick.scorer.asked) == {1}
    told = latency_metrics(found)
    assert set(told) == {f"{name}latency_ms_p{level}" for name in ("", "champion_") for level in (50, 99)}
    assert told["champion_latency_ms_p50"] >= 4.0 > told["latency_ms_p50"]
    assert len(found[""]) == len(found["champion_"]) == 30, "the first calls are not counted"


def test_the_size_of_a_model_is_that_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "one").write_bytes(b"12345")
    (tmp_path / "deep" / "two").write_bytes(b"123")
    assert folder_bytes(tmp_path) == 8


def test_the_peak_of_memory_is_that_since_it_was_forgotten() -> None:
    forget_peak()
    before = peak_memory_mb()
    held = np.ones(30_000_000)  # 240 MB
    assert peak_memory_mb() > before + 200
    del held
    assert peak_memory_mb() > before + 200, "the peak stays, though the memory is free again"
