"""The rows that two runs are compared on: neither model has learned from them, both were asked the same, one outcome.

Those are the test rows of both runs, matched by customer and moment; or, where the challenger's run has asked this very
champion (training/rival.py), all that it kept of it, later rows too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from features.errors import ArtefactError, InputError
from features.schema import Bool, Float64
from serving.question import Question
from training.finished import FinishedRun
from training.predictions import CHAMPION, FILE, FOLDER, MODEL, Predictions
from training.track import MODEL_FOLDER

BOTH_TESTED = "test rows of both runs: neither model had learned from them"
SCORED_LATER = (
    "test rows of the challenger that the champion cannot have learned from: it was asked when they were judged"
)


@dataclass(frozen=True)
class SharedRows:
    """What both runs said of the same rows, in the same order, and how many rows each has that do not count here."""

    challenger: Predictions
    champion: Predictions
    left_out: Mapping[str, int]
    source: str = BOTH_TESTED

    @property
    def said(self) -> tuple[Float64, Float64]:
        """Probabilities of challenger and champion, float64 [n, m] each."""
        return self.challenger.probabilities[MODEL], self.champion.probabilities[MODEL]

    @property
    def customers(self) -> int:
        return len(np.unique(self.challenger.customer_id.astype(str)))

    @property
    def span(self) -> tuple[datetime, datetime]:
        """The first and the last moment of the rows."""
        moments = self.challenger.as_of
        first, last = (datetime.fromtimestamp(int(one) / 1e6, UTC) for one in (moments.min(), moments.max()))
        return first, last


def shared_rows(challenger: FinishedRun, champion: FinishedRun) -> SharedRows:
    """The test rows of both; InputError where there are none to compare by."""
    one, other = (_predictions(run) for run in (challenger, champion))
    _require_one_question(one.question, other.question)
    asked_then = _champion_of_that_time(challenger, champion, one)
    if asked_then is not None:
        return asked_then
    here, there = one.shared_with(other)
    left_out = {
        "tested by the challenger only": len(one) - len(here),
        "tested by the champion only": len(other) - len(there),
    }
    mine, theirs = one.take(here), other.take(there)
    same_choice = (mine.available == theirs.available).all(axis=1) & (mine.outside == theirs.outside)
    same_outcome = _same_outcome(mine, theirs)
    left_out["another choice was offered in the two runs"] = int((~same_choice).sum())
    left_out["another outcome was known in the two runs"] = int((same_choice & ~same_outcome).sum())
    usable = same_choice & same_outcome
    if not usable.any():
        told = "; ".join(f"{why}: {count:,}" for why, count in left_out.items() if count)
        raise InputError(
            f"runs are compared on test rows that both have, however {challenger.id} and {champion.id} share none "
            f"({told}); train both on the same data with the same --until, --horizon and --split"
        )
    return SharedRows(mine.take(usable), theirs.take(usable), left_out)


def _champion_of_that_time(challenger: FinishedRun, champion: FinishedRun, rows: Predictions) -> SharedRows | None:
    """What the challenger's run kept of this very champion; it holds the rows that both tested, and later ones."""
    said = rows.probabilities.get(CHAMPION)
    if said is None or challenger.params.get("champion_run") != champion.id or not _is_its_model(challenger):
        return None
    known = np.asarray(~np.isnan(np.where(rows.available, said, 0.0)).any(axis=1), np.bool_)
    if not known.any():
        return None
    mine = rows.take(known)
    theirs = replace(mine, probabilities={MODEL: mine.probabilities[CHAMPION]})
    left_out = {"the champion may have learned from them": int((~known).sum())}
    return SharedRows(mine, theirs, left_out, SCORED_LATER)


def _is_its_model(challenger: FinishedRun) -> bool:
    """Whether the champion of that time was the model of its run, not the prior beside it."""
    from mlflow.exceptions import MlflowException

    try:
        version = challenger.client.get_model_version(challenger.params["model"], challenger.params["champion_version"])
    except (KeyError, MlflowException):
        return False
    return str(version.source).rstrip("/").endswith(f"/{MODEL_FOLDER}")


def _predictions(run: FinishedRun) -> Predictions:
    """What it said of its test rows; InputError where it keeps nothing of the kind."""
    try:
        path = run.artefact(f"{FOLDER}/{FILE}")
    except ArtefactError as error:
        raise InputError(
            f"runs are compared by what they said of their test rows, however run {run.id} ({run.name}) keeps none; "
            "name finished runs of a model that chooses among candidates, trained with this version"
        ) from error
    return Predictions.load(path)


def _require_one_question(one: Question, other: Question) -> None:
    for what, mine, theirs in (
        ("model", one.model, other.model),
        ("candidates", one.candidates, other.candidates),
        ("horizon in days", one.horizon_days, other.horizon_days),
        ("kind of question", (one.link, one.outside), (other.link, other.outside)),
    ):
        if mine != theirs:
            raise InputError(
                f"two runs are compared that answer one question, however their {what} differs: {mine} and {theirs}; "
                "name two runs of one model"
            )


def _same_outcome(one: Predictions, other: Predictions) -> Bool:
    same = (one.taken == other.taken).all(axis=1) & (one.judged_for_ranking == other.judged_for_ranking)
    return np.asarray(same & (one.judged_for_probability == other.judged_for_probability), np.bool_)
