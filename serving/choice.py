"""The choice model: rows and what is available in, calibrated probabilities out; kept as a folder of verified files.

question.json      what it answers
rows.json          the schema of the rows it reads
calibration.json   from raw to calibrated probabilities
scorer.json, ...   the scorer's own files
manifest.json      SHA-256 of each of the above; checked before any of them is parsed
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from features.errors import ArtefactError
from features.schema import Bool, Float32, Float64, Rows, RowSchema
from serving.calibration import Calibration
from serving.question import Question, masked_log_softmax

__all__ = ["ChoiceModel", "Question", "Scored", "Scorer", "masked_log_softmax", "ranks"]

MANIFEST = "manifest.json"
QUESTION_FILE = "question.json"
ROWS_FILE = "rows.json"
CALIBRATION_FILE = "calibration.json"


@runtime_checkable
class Scorer(Protocol):
    """The seam between a model family and everything else."""

    @property
    def family(self) -> str: ...

    def utilities(self, rows: Rows) -> Float32:
        """Log-utilities, float32 [n, m + 1], the outside option last; ArtefactError on rows of another schema."""
        ...

    def save(self, folder: Path) -> None:
        """Write the scorer's files into an existing folder."""
        ...


@dataclass(frozen=True)
class Scored:
    """The answer for n rows and m candidates.

    probabilities: float64 [n, m], calibrated; NaN where not available or dropped.
    utilities: float32 [n, m + 1], as the scorer gave them.
    dropped: available candidates without an answer because a utility was not finite.
    """

    probabilities: Float64
    utilities: Float32
    dropped: int


@dataclass(frozen=True)
class ChoiceModel:
    """A scorer with its question, calibration and the schema of the rows that it reads."""

    question: Question
    scorer: Scorer
    calibration: Calibration
    row_schema: RowSchema

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        """Calibrated probabilities, float64 [n, m]; NaN where not available."""
        return self.score(rows, available).probabilities

    def score(self, rows: Rows, available: Bool) -> Scored:
        """Score n rows; `available` (bool [n, m]) says what may be chosen.

        A candidate whose utility is not finite is dropped and counted, never ranked. ArtefactError when the
        rows have another schema than the model.
        """
        if rows.schema is not self.row_schema and rows.schema.fingerprint != self.row_schema.fingerprint:
            raise ArtefactError(
                f"{self.question.model} was trained on feature rows {self.row_schema.fingerprint[:12]}, however these "
                f"rows are {rows.schema.fingerprint[:12]}; train again on the present features"
            )
        wanted = (len(rows), len(self.question.candidates))
        if available.shape != wanted:
            raise ValueError(f"available is bool {wanted}, however its shape is {available.shape}")
        utilities = self.scorer.utilities(rows)  # [n, m + 1]
        usable, clean, dropped = available, utilities, 0
        finite = np.isfinite(utilities)
        if np.count_nonzero(finite) < finite.size:
            usable = available & finite[:, :-1]
            if self.question.outside:
                usable &= finite[:, -1:]
            clean = np.where(finite, utilities, np.float32(0))
            dropped = int(available.sum() - usable.sum())
        if self.calibration.alone:
            mapped = self.calibration.apply_known(self.question.shares(clean, usable))
        else:
            mapped = self.calibration.apply(self.question.probabilities(clean, usable))
        return Scored(np.where(usable, np.minimum(mapped, 1.0), np.nan), utilities, dropped)

    def save(self, folder: Path) -> None:
        """Write the model to `folder`, all of it or nothing; ArtefactError when something is there already."""

        def write(draft: Path) -> None:
            (draft / QUESTION_FILE).write_text(self.question.to_json(), encoding="utf-8")
            (draft / ROWS_FILE).write_text(self.row_schema.to_json(), encoding="utf-8")
            (draft / CALIBRATION_FILE).write_text(self.calibration.to_json(), encoding="utf-8")
            self.scorer.save(draft)

        write_verified(folder, write)

    @classmethod
    def load(cls, folder: Path) -> ChoiceModel:
        """Load a saved model; ArtefactError when a file is missing, extra, damaged or does not fit the others."""
        folder = Path(folder)
        verify(folder)
        try:
            question = Question.from_json((folder / QUESTION_FILE).read_text(encoding="utf-8"))
            row_schema = RowSchema.from_json((folder / ROWS_FILE).read_text(encoding="utf-8"))
            calibration = Calibration.from_json((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
            scorer = load_scorer(folder)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{folder} is not a model that this version reads: {error!r}; train again") from error
        return cls(question, scorer, calibration, row_schema)


def write_verified(folder: Path, write: Callable[[Path], object]) -> None:
    """Make `folder` of the files that `write` puts into it and their manifest, all of it or nothing.

    ArtefactError when something is there already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtefactError(f"a model is saved to a new folder, however {folder} exists; choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(draft)
        written = sorted(path for path in draft.rglob("*") if path.is_file())
        manifest = {"files": {path.relative_to(draft).as_posix(): _sha256(path) for path in written}}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        draft.chmod(0o755)  # mkdtemp makes it private, a model is not
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def verify(folder: Path) -> None:
    """ArtefactError unless `folder` holds exactly the files of its manifest, unchanged. Parses nothing else."""
    try:
        raw: Any = json.loads((folder / MANIFEST).read_bytes())
        expected: dict[str, str] = dict(raw["files"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{folder} has no readable {MANIFEST}: {error!r}; train again") from error
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST}
    for name in sorted(present ^ expected.keys()):
        state = "missing" if name in expected else "not in the manifest"
        raise ArtefactError(f"{folder} holds exactly the files of its manifest, however {name} is {state}; train again")
    for name, digest in expected.items():
        if _sha256(folder / name) != digest:
            raise ArtefactError(f"{folder / name} differs from its SHA-256 in {MANIFEST}; it is damaged, train again")


def load_scorer(folder: Path) -> Scorer:
    """The scorer in a verified folder, whatever its family; only the library of that family is imported."""
    from serving.scorers import SCORER_FILE, LightGBMScorer, PriorScorer

    family = json.loads((folder / SCORER_FILE).read_text(encoding="utf-8"))["family"]
    if family == PriorScorer.family:
        return PriorScorer.load(folder)
    if family == LightGBMScorer.family:
        return LightGBMScorer.load(folder)
    if family == "counts":
        from serving.counts_scorer import CountsScorer

        return CountsScorer.load(folder)
    if family == "ensemble":
        from serving.ensemble import EnsembleScorer

        return EnsembleScorer.load(folder)
    if family == "torch":
        from serving.network import TorchScorer

        return TorchScorer.load(folder)
    known = "prior, counts, lightgbm, torch and ensemble"
    raise ArtefactError(f"families are {known}, however {folder} says {family!r}; train again")


def ranks(probabilities: Float64, available: Bool) -> npt.NDArray[np.int32]:
    """Ranks, int32 [n, m]: 1 = most probable, ties in candidate order, 0 = not available or no probability."""
    shown = available & ~np.isnan(probabilities)
    order = np.argsort(np.where(shown, -probabilities, np.inf), axis=1, kind="stable")  # [n, m]
    places = np.empty(order.shape, dtype=np.int32)
    np.put_along_axis(places, order, np.arange(1, order.shape[1] + 1, dtype=np.int32)[None, :], axis=1)
    return np.where(shown, places, np.int32(0))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
