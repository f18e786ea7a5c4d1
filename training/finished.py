"""A finished run as MLflow keeps it: what it was told, what it found, and its artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import ArtefactError, InputError
from training import predictions
from training.predictions import Predictions

if TYPE_CHECKING:
    from training.track import Tracking

FINISHED = "FINISHED"


@dataclass(frozen=True)
class FinishedRun:
    """One run of MLflow. params, metrics, tags: as logged."""

    client: Any
    id: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]

    @classmethod
    def open(cls, tracking: Tracking, run_id: str) -> FinishedRun:
        """The run; InputError where there is none, or where it has not finished."""
        from mlflow.exceptions import MlflowException

        try:
            found = tracking.client.get_run(run_id)
        except MlflowException as error:
            raise InputError(f"{tracking.uri} has no run {run_id!r}; `nextbest ui` lists the runs") from error
        if found.info.status != FINISHED:
            raise InputError(f"run {run_id} is {found.info.status}, only a finished one can be used; train again")
        data = found.data
        return cls(tracking.client, found.info.run_id, found.info.run_name, data.params, data.metrics, data.tags)

    def artefact(self, path: str) -> Path:
        """A file or folder of the run on this machine; ArtefactError where the run has none of that name."""
        from mlflow.exceptions import MlflowException

        try:
            found = Path(self.client.download_artifacts(self.id, path))
        except (MlflowException, OSError) as error:
            raise ArtefactError(f"run {self.id} keeps no {path}; train again with this version") from error
        if not found.exists():
            raise ArtefactError(f"run {self.id} keeps no {path}; train again with this version")
        return found

    def predictions(self) -> Predictions:
        """What the run's model said of its test rows, before it was fitted again."""
        return Predictions.load(self.artefact(f"{predictions.FOLDER}/{predictions.FILE}"))
