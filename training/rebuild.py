"""A run made again from its order, to see whether every metric comes out bit for bit.

It is trained in an MLflow of its own that is thrown away: neither the run nor any alias is touched. Other data or other
features are refused, as nothing could be told from them. Another commit or lock file is told and tried: whether it
changes the metrics is then the question. What depends on the clock or the machine (`cost/`) is left out, and so is what
the gate said, which is another question asked at another time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from features.errors import ArtefactError, InputError
from features.progress import SILENT, Progress
from serving.content_model import CONTENT_MODEL
from serving.registry import TIMING_MODEL
from training.commands.cli_sequence import SEQUENCE_NAME
from training.content.train_content import train_content
from training.finished import FinishedRun
from training.orders import order_of
from training.plan import MODELS, Order
from training.refresh import REFRESHED_FROM
from training.rival import Rival, rival
from training.track import Tracking
from training.train import Trained, train
from training.train_timing import train_timing

if TYPE_CHECKING:
    from features.home import Build

COST = "cost/"


@dataclass(frozen=True)
class Difference:
    """A metric that did not come out as it was; None: it is not there at all."""

    metric: str
    was: float | None
    found: float | None


@dataclass(frozen=True)
class Rebuilt:
    """How it went. compared: metrics, those of nested runs too, by "<nested run>: <metric>"."""

    run_id: str
    model: str
    compared: int
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def identical(self) -> bool:
        return not self.differences


def rebuild(
    run_id: str, build: Build, tracking: Tracking, code: Mapping[str, str], progress: Progress = SILENT
) -> Rebuilt:
    """Train the run again and compare. code: what `lineage` says of the code that does it.

    Raises InputError where the run is unknown or has not finished, or learned from other data or features than the
    build's, or keeps no order that can be read.
    """
    found = FinishedRun.open(tracking, run_id)
    if REFRESHED_FROM in found.params:
        raise InputError(
            f"a run is made again by training, however this one has the trees of run {found.params[REFRESHED_FROM]}; "
            "make that one again"
        )
    try:
        order = order_of(found)
    except ArtefactError as error:
        raise InputError(f"a run is made again from its order, however {error}") from error
    require_same_data(found, build)
    notes = code_notes(found.tags, code)
    against, note = recorded_rival(found, order, tracking)
    with tempfile.TemporaryDirectory() as folder:
        apart = Tracking(f"sqlite:///{folder}/mlflow.db")
        made = train_again(order, build, apart, code, against, progress)
        now = metrics_of(apart, made.run_id)
    was = metrics_of(tracking, found.id)
    if note:
        was = {name: value for name, value in was.items() if "champion" not in name}
        notes = (*notes, note)
    return Rebuilt(found.id, order.model, len(was.keys() | now.keys()), differences(was, now), notes, made.seconds)


def train_again(
    order: Order, build: Build, apart: Tracking, code: Mapping[str, str], against: Rival | None, progress: Progress
) -> Trained:
    """The training that the order's model has."""
    if order.family == SEQUENCE_NAME:
        from training.sequence.train_sequence import train_sequence  # imports torch, seconds

        return train_sequence(order, build, apart, code, progress)
    if order.model in MODELS:
        return train(order, build, apart, code, progress, against)
    if order.model == CONTENT_MODEL:
        return train_content(order, build, apart, code, progress)
    if order.model == TIMING_MODEL:
        return train_timing(build, apart, code, order.until, order.seed, progress)
    raise InputError(
        f"runs of {', '.join((*MODELS, CONTENT_MODEL, TIMING_MODEL))} can be made again, however this is {order.model}"
    )


def require_same_data(found: FinishedRun, build: Build) -> None:
    """InputError unless the build holds the data and the features that the run learned from."""
    here = {"nextbest.data": build.bank.fingerprint, "nextbest.features": build.fingerprint}
    for tag, what in (("nextbest.data", "data"), ("nextbest.features", "features")):
        if found.tags.get(tag) != here[tag]:
            raise InputError(
                f"a run is made again from the {what} that it learned from, {found.tags.get(tag, 'unknown')[:16]}, "
                f"however the home holds {here[tag][:16]}; build those with `nextbest features build DIR`"
            )


def code_notes(was: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Where the code or the locked packages are others than the run's, in words."""
    notes = []
    for tag, what in (("git_commit", "the code"), ("lock_sha256", "the lock file")):
        before, here = was.get(tag, "unknown"), now.get(tag, "unknown")
        if before != here:
            notes.append(f"{what} is not the run's: {_short(before)} then, {_short(here)} now")
        elif before.endswith("+changes"):
            notes.append(f"{what} was changed after commit {before[:12]}, so nobody can say whether it is the run's")
    return tuple(notes)


def recorded_rival(found: FinishedRun, order: Order, tracking: Tracking) -> tuple[Rival | None, str]:
    """The champion that the run was compared with, and why not where it is gone; none where there was none."""
    version = found.params.get("champion_version")
    if version is None:
        return None, ""
    try:
        return rival(order.model, version, tracking), ""
    except ArtefactError as error:
        return None, f"differences to the champion are left out, as version {version} can no longer be read: {error}"


def metrics_of(tracking: Tracking, run_id: str) -> dict[str, float]:
    """All metrics of a run and of its nested runs, and of theirs (trials), but those of cost."""
    run = tracking.client.get_run(run_id)
    nested = tracking.client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000
    )
    found = dict(run.data.metrics)
    for one in nested:
        within = metrics_of(tracking, one.info.run_id)
        found |= {f"{one.info.run_name}: {name}": value for name, value in within.items()}
    return {name: value for name, value in found.items() if not name.rpartition(": ")[2].startswith(COST)}


def differences(was: Mapping[str, float], now: Mapping[str, float]) -> tuple[Difference, ...]:
    """Metrics that are not equal to the last bit, by name."""
    names = sorted(was.keys() | now.keys())
    return tuple(Difference(name, was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name))


def _short(value: str) -> str:
    return value[:12] + ("+changes" if value.endswith("+changes") else "")
