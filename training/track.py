"""MLflow: where runs, metrics and models are kept. The backend is SQLite, artefacts lie beside it, nothing is pickled.

Several processes that open a fresh SQLite backend at one moment race in its schema migrations, so it is initialised
once, under a lock. A run carries the process that made it; where that is gone, the next start marks it KILLED.
One schema for every model and family:

params     the order (model, family, horizon_days, attribution, until, seed, split, tune), the rows of each part, what
           was chosen (chosen_family, calibration, rounds), and champion_version, champion_run, champion_rows where
           there was a champion to compare with
metrics    valid/<metric>, test/<metric>, unseen/<metric> (beyond `until`); <part>/<metric>_minus_<other> with _low and
           _high against the prior, counting and, on test, the champion; cost/<what> for all that depends on the clock
           or the machine, which "identical metrics" leaves out
tags       git_commit, lock_sha256 (the code); nextbest.data, nextbest.features, nextbest.row_schema (what was learned
           from); nextbest.reason (why this family); nextbest.gate, nextbest.gate_reasons (what the gate said);
           nextbest.host, .boot, .pid, .started (whose run it is)
inputs     the data set, by name and fingerprint
artefacts  model/ prior/ order/ ladder/ predictions/ calibration/ reference/ labels/ plots/ gate/ comparisons/ card.md

Nested runs (`run(..., parent=…)`) are parts of a run: the families that it chose among, and trials or folds where it
has any. They carry the tag nextbest.part (family, trial, fold), the parameters of what they fitted and metrics of the
same names, and no artefacts; who compares runs finds them by mlflow.parentRunId. Trials of `--tune` are nested in their
family's run: inner/log_loss on the newest rows of train, and the tag nextbest.stopped where a trial was given up.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import InputError
from serving.registry import CHAMPION, PRIOR
from training.process import Process

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHALLENGER = "challenger"
"""Alias of the version that was trained last, whatever the gate said of it."""
MOST_AT_ONCE = 100
"""Parameters that MLflow takes in one transaction."""
MODEL_FOLDER = "model"
PRIOR_FOLDER = "prior"


class Tracking:
    """A client of one MLflow backend."""

    def __init__(self, uri: str) -> None:
        """Open the backend, creating it where it is a SQLite file that does not exist yet."""
        self.uri = uri
        with _only_one(uri):
            logging.getLogger("mlflow").setLevel(logging.WARNING)
            logging.getLogger("alembic").setLevel(logging.WARNING)
            import sqlalchemy  # noqa: F401  # its import shows its own warnings again, so it comes before they are hidden
            from mlflow.tracking import MlflowClient

            def opened(address: str) -> Any:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    client = MlflowClient(tracking_uri=address, registry_uri=address)
                    client.search_experiments(max_results=1)
                return client

            path = sqlite_path(uri)
            if path is not None and not path.exists():
                # A database whose making was killed cannot be opened again: it gets its name when it is whole.
                draft = path.with_name(f"{path.name}.new")
                draft.unlink(missing_ok=True)
                draft.with_name(f"{draft.name}-journal").unlink(missing_ok=True)
                opened(f"sqlite:///{draft.absolute()}")
                os.replace(draft, path)
            self.client: Any = opened(uri)

    def experiment(self, name: str) -> str:
        """Id of the experiment, created on first use; on our SQLite backend its artefacts lie beside the database."""
        with _only_one(self.uri):
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            path = sqlite_path(self.uri)
            location = None if path is None else (path.parent / "artifacts" / name).as_uri()
            return str(self.client.create_experiment(name, artifact_location=location))

    def mark_killed(self, experiment_id: str) -> int:
        """Mark runs whose process is gone as KILLED; how many."""
        runs = self.client.search_runs([experiment_id], "attributes.status = 'RUNNING'", max_results=1000)
        dead = [run for run in runs if (process := Process.of(run.data.tags)) is not None and process.is_gone]
        for run in dead:
            self.client.set_terminated(run.info.run_id, "KILLED")
        return len(dead)

    @contextmanager
    def run(self, experiment_id: str, name: str, tags: Mapping[str, str], parent: str | None = None) -> Iterator[Run]:
        """A run that ends FINISHED, or FAILED when the block raises."""
        own = {"mlflow.runName": name, "mlflow.source.name": "nextbest", **Process.this().tags, **tags}
        if parent is not None:
            own["mlflow.parentRunId"] = parent
        made = self.client.create_run(experiment_id, tags=own, run_name=name)
        run = Run(self.client, made.info.run_id)
        try:
            yield run
        except BaseException as error:
            self.client.set_terminated(run.id, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self.client.set_terminated(run.id, "FINISHED")

    def register(self, model: str, run: Run, prior: bool = True, champion: bool = False) -> str:
        """Register the models of `run` as new versions, its prior too if it has one; the version of its model.

        `challenger` names it from now on. What serves stays what it is until `promote` is called; champion: call it at
        once, without a gate. Aliases move last: a kill before changes nothing.
        """
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_registered_model(model)
        except MlflowException:
            self.client.create_registered_model(model)
        root = self.client.get_run(run.id).info.artifact_uri
        folders = (PRIOR_FOLDER, MODEL_FOLDER) if prior else (MODEL_FOLDER,)
        versions = {
            folder: str(self.client.create_model_version(model, source=f"{root}/{folder}", run_id=run.id).version)
            for folder in folders
        }
        self.client.set_registered_model_alias(model, CHALLENGER, versions[MODEL_FOLDER])
        if champion:
            self.promote(model, run.id)
        return versions[MODEL_FOLDER]

    def promote(self, model: str, run_id: str, folder: str = MODEL_FOLDER) -> str:
        """Let `champion` name what the run registered from `folder`, and `prior` its prior; the champion's version.

        The champion's alias moves last. InputError where the run registered nothing of that name.
        """
        versions = self._versions(model, run_id)
        if folder not in versions:
            raise InputError(
                f"a champion is a registered version, however run {run_id} registered no {folder} of {model}; "
                f"train with `nextbest train {model}`"
            )
        if PRIOR_FOLDER in versions:
            self.client.set_registered_model_alias(model, PRIOR, versions[PRIOR_FOLDER])
        self.client.set_registered_model_alias(model, CHAMPION, versions[folder])
        return versions[folder]

    def named(self, model: str, reference: str) -> tuple[str, str, str] | None:
        """Version, run id and artefact folder ("model" or "prior") that an alias or a version names; None: nothing."""
        from mlflow.exceptions import MlflowException

        get = self.client.get_model_version if reference.isdigit() else self.client.get_model_version_by_alias
        try:
            found = get(model, reference)
        except MlflowException:
            return None
        return str(found.version), str(found.run_id or ""), _folder(found)

    def _versions(self, model: str, run_id: str) -> dict[str, str]:
        """Artefact folder → the newest version of `model` that the run registered from it."""
        found = self.client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
        return {_folder(one): str(one.version) for one in sorted(found, key=lambda one: int(one.version))}


@dataclass(frozen=True)
class Run:
    """An MLflow run that is being written."""

    client: Any
    id: str

    def params(self, values: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        # in one transaction: each costs a sync of the disk
        params = [Param(name, str(value)) for name, value in values.items()]
        for start in range(0, len(params), MOST_AT_ONCE):
            self.client.log_batch(self.id, params=params[start : start + MOST_AT_ONCE])

    def metrics(self, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        # one time for all: the run's own start, so that a metric's order never depends on the clock
        at = self.client.get_run(self.id).info.start_time
        self.client.log_batch(self.id, metrics=[Metric(name, float(value), at, 0) for name, value in values.items()])

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.id, tags=[RunTag(name, str(value)) for name, value in values.items()])

    def figure(self, drawn: Figure, file: str) -> None:
        self.client.log_figure(self.id, drawn, file)

    def data(self, name: str, digest: str, source: str, context: str) -> None:
        """Record the data set that the run learned from."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        used = Dataset(name=name, digest=digest[:36], source_type="local", source=source)
        self.client.log_inputs(self.id, [DatasetInput(used, [InputTag("mlflow.data.context", context)])])

    def folder(self, local: Path, name: str) -> None:
        self.client.log_artifacts(self.id, str(local), name)

    def text(self, content: str, file: str) -> None:
        self.client.log_text(self.id, content, file)


def _folder(version: Any) -> str:
    """The artefact folder that a model version was registered from."""
    return str(version.source).rstrip("/").rpartition("/")[2]


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite backend; None for any other."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def lineage(root: Path) -> dict[str, str]:
    """Git commit (with `+changes` where files differ from it) and SHA-256 of the lock file, where they are known."""
    found = {}
    commit = _git(root, "rev-parse", "HEAD")
    if commit:
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
        found["git_commit"] = commit + ("+changes" if changed else "")
        found["mlflow.source.git.commit"] = commit
    lock = root / "requirements.lock"
    if lock.is_file():
        found["lock_sha256"] = hashlib.sha256(lock.read_bytes()).hexdigest()
    return found


def _git(root: Path, *arguments: str) -> str:
    try:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def _only_one(uri: str) -> Iterator[None]:
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
