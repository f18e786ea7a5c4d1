"""Two finished runs of one model as MLflow would hand them out, over rows whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from serving.question import Question
from training.finished import FinishedRun
from training.predictions import MODEL, Predictions

QUESTION = Question("next-best-product", ("card", "loan", "fund", "home", "gold"), "product", "joint", True, 30.0)
CHALLENGER, CHAMPION = "a" * 32, "c" * 32
DAY = 86_400_000_000
SPRING = 1_714_521_600_000_000  # 1 May 2024, µs


@dataclass
class Shelf:
    """What is asked of an MLflow client: artefacts, and where a registered version came from."""

    folder: Path
    source: str = "artifacts/model"

    def download_artifacts(self, run_id: str, path: str) -> str:
        found = self.folder / run_id / path
        if not found.exists():
            raise OSError(f"no {path}")
        return str(found)

    def get_model_version(self, name: str, version: str) -> SimpleNamespace:
        return SimpleNamespace(source=self.source)


def rows(count: int = 900, seed: int = 0) -> tuple[Predictions, Any]:
    """Predictions whose probabilities are the truth, and those of somebody who knows only how usual each candidate is.

    Three rows of each customer; segments a and b; every tenth customer is cold. Every outcome is drawn from the truth.
    """
    draw = np.random.default_rng(seed)
    usual = np.array([0.05, 0.1, 0.15, 0.1, 0.05])
    liking = draw.beta(0.5, 3.0, (count, 5))
    truth = 2.5 * usual * liking / liking.mean()
    truth = np.clip(truth, 0.001, 0.6)
    available = draw.random((count, 5)) < 0.9
    available[:, 2] = True
    taken = (draw.random((count, 5)) < truth) & available
    customer = np.array([f"c{place // 3}" for place in range(count)], dtype=object)
    number = np.arange(count) // 3
    knows = Predictions(
        question=QUESTION,
        customer_id=customer,
        as_of=SPRING + (np.arange(count) % 3) * DAY,
        available=available,
        taken=taken,
        outside=np.ones(count, bool),
        judged_for_ranking=taken.any(axis=1),
        judged_for_probability=np.ones(count, bool),
        probabilities={MODEL: np.where(available, truth, np.nan)},
        slices={
            "segment": np.where(number % 2 == 0, "a", "b").astype(object),
            "history": np.where(number % 10 == 0, "holds nothing", "holds something").astype(object),
            "birth_date": np.array(["9.5 and more", "below 9.5", "unknown"], dtype=object)[number % 3],
        },
    )
    return knows, np.where(available, taken.sum(axis=0) / available.sum(axis=0), np.nan)


@dataclass(frozen=True)
class TwoRuns:
    """The runs, and how to change one of them."""

    folder: Path
    challenger: FinishedRun
    champion: FinishedRun

    @classmethod
    def of(cls, folder: Path, knows: Predictions, usual: Any, **champion: Any) -> TwoRuns:
        """Runs that keep these predictions. champion: fields of its predictions that differ."""
        knows.save(folder / CHALLENGER / "predictions" / "test.parquet")
        other = replace(knows, probabilities={MODEL: usual}, **champion)
        other.save(folder / CHAMPION / "predictions" / "test.parquet")
        shelf = Shelf(folder)
        params = {"model": QUESTION.model, "seed": "0", "rows_train": "1234", "until": "2024-06-01T00:00:00+00:00"}
        tags = {"git_commit": "1" * 40, "lock_sha256": "2" * 64, "nextbest.data": "3" * 64}
        tags |= {"nextbest.features": "4" * 64, "nextbest.row_schema": "5" * 64}
        costs = {"cost/latency_ms_p99": 2.0, "cost/model_bytes": 2e6}
        return cls(
            folder,
            FinishedRun(shelf, CHALLENGER, "one", {**params, "chosen_family": "lightgbm"}, costs, tags),
            FinishedRun(shelf, CHAMPION, "two", {**params, "chosen_family": "prior"}, {}, tags),
        )

    def challenger_with(self, change: Callable[[Predictions], Predictions]) -> FinishedRun:
        """The challenger, keeping other predictions."""
        path = self.folder / CHALLENGER / "predictions" / "test.parquet"
        change(Predictions.load(path)).save(path)
        return self.challenger
