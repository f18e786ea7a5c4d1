"""Artefacts are fetched, tried out in another process (`serving.canary`), and only then loaded into this one.

What is loaded here is the very copy that was tried, and it has to say the same here as it did there. What it said is
kept, so that the next start of a server need not try it out again: an artefact is known by its manifest.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from features.errors import ArtefactError, NextbestError
from features.home import replace_text
from serving.canary import ARTEFACTS_FILE, CANARY_FILE, CLOCK, Canary, Model, digest, load
from serving.choice import MANIFEST
from serving.errors import RegistryUnreachable
from serving.registry import Registered

SECONDS = 30
"""Processor time that one artefact has: to be loaded and asked, the libraries that it needs included."""
_POLL_SECONDS = 0.05
_SHOWN = 300

Fetch = Callable[[Registered, Path], Path]
"""(what, new folder) → a folder in it with a copy of the artefact; ArtefactError says why there is none."""


@dataclass(frozen=True)
class Refused:
    """Why an artefact must not serve."""

    reason: str


class Stopped(NextbestError):
    """The server stops; what was being tried out is not known."""


@dataclass(frozen=True)
class _Artefact:
    """A copy that nobody else changes. mark: the file that says what it said if it ever passed; None: none can."""

    name: str
    source: str
    folder: Path
    mark: Path | None

    def refused(self, reason: str) -> Refused:
        """With the place that others know, instead of the copy's."""
        return Refused(reason.replace(str(self.folder), self.source))


class Trial:
    """Turns registered versions into models that were tried out on `canary`.

    passed: folder in which it is kept what those said that passed. seconds: of processor time for each.
    """

    def __init__(self, fetch: Fetch, canary: Canary, passed: Path, seconds: int = SECONDS) -> None:
        self._fetch = fetch
        self._canary = canary
        self._passed = passed
        self._seconds = seconds

    def __call__(self, wanted: Sequence[Registered], stopping: Callable[[], bool]) -> list[Model | Refused]:
        """One outcome per wanted version, in order; RegistryUnreachable, Stopped where that cannot be told."""
        with tempfile.TemporaryDirectory(prefix="nextbest-canary-") as name:
            root = Path(name)
            artefacts = [self._fetched(one, root / f"model-{number}") for number, one in enumerate(wanted)]
            new = [one for one in artefacts if isinstance(one, _Artefact) and not _said_before(one)]
            said = dict(zip(new, self._tried(root, new, stopping), strict=True))
            return [
                one if isinstance(one, Refused) else self._taken(one, said.get(one) or _said_before(one))
                for one in artefacts
            ]

    def _fetched(self, wanted: Registered, folder: Path) -> _Artefact | Refused:
        try:
            copy = self._fetch(wanted, folder)
        except RegistryUnreachable:
            raise
        except (ArtefactError, OSError) as error:
            return Refused(str(error))
        manifest = copy / MANIFEST
        if not manifest.exists():
            return _Artefact(wanted.model_name, wanted.source, copy, None)
        # All that its answer depends on: its files, the rows, and the libraries that read them.
        libraries = [importlib.metadata.version(library) for library in ("numpy", "lightgbm", "llvmlite", "torch")]
        parts = (wanted.model_name, self._canary.text, *libraries)
        known_by = hashlib.sha256("\0".join(parts).encode() + manifest.read_bytes()).hexdigest()
        return _Artefact(wanted.model_name, wanted.source, copy, self._passed / known_by)

    def _tried(self, root: Path, artefacts: Sequence[_Artefact], stopping: Callable[[], bool]) -> list[str | Refused]:
        """What each said there, as a digest. The first that said nothing ended the process: on with those after it."""
        outcomes: list[str | Refused] = []
        while len(outcomes) < len(artefacts):
            folder = root / f"trial-{len(outcomes)}"
            folder.mkdir()
            rest = [(one.name, str(one.folder)) for one in artefacts[len(outcomes) :]]
            (folder / CANARY_FILE).write_text(self._canary.text, encoding="utf-8")
            (folder / ARTEFACTS_FILE).write_text(json.dumps(rest), encoding="utf-8")
            ended = self._run(folder, len(rest), stopping)
            for number in range(len(rest)):
                outcome = _outcome(folder, number)
                outcomes.append(outcome or Refused(f"the process that tried it out {ended}"))
                if outcome is None:
                    break
        return outcomes

    def _run(self, folder: Path, artefacts: int, stopping: Callable[[], bool]) -> str:
        """Run the other process to its end, whatever that is; how it ended, in words."""
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.canary", str(folder), str(self._seconds)],
                cwd=Path(__file__).resolve().parents[1],
                env=_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            # It ends itself in time (serving.canary); this is for one that cannot even do that.
            deadline = time.monotonic() + CLOCK * self._seconds * (artefacts + 1)
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    if stopping():
                        raise Stopped("the server stops")
                    time.sleep(_POLL_SECONDS)
            finally:
                process.kill()
                code = process.wait()
        last = (folder / "log").read_text("utf-8", errors="replace").strip()[-_SHOWN:]
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"{how}: {last}" if last else how

    def _taken(self, artefact: _Artefact, said: str | Refused | None) -> Model | Refused:
        """The model in this process, if it says here what it said there."""
        if isinstance(said, Refused):
            return artefact.refused(said.reason)
        try:
            model = load(artefact.name, artefact.folder)
            here = digest(self._canary.answer(artefact.name, model))
        except ArtefactError as error:
            return artefact.refused(str(error))
        if here != said:
            return artefact.refused(f"{artefact.name} does not say the same twice; train again")
        if artefact.mark and not artefact.mark.exists():
            with suppress(OSError):  # a home that cannot be written to: it is tried out again at the next start
                self._passed.mkdir(parents=True, exist_ok=True)
                replace_text(artefact.mark, here)
        return model


def _said_before(artefact: _Artefact) -> str | None:
    """What it said when it passed; None: it never did."""
    return artefact.mark.read_text("utf-8") if artefact.mark and artefact.mark.exists() else None


def _outcome(folder: Path, number: int) -> str | Refused | None:
    refused, said = folder / f"{number}.refused", folder / f"{number}.said"
    if refused.exists():
        return Refused(refused.read_text("utf-8", errors="replace"))
    return said.read_text("utf-8") if said.exists() else None


def _environment(present: Mapping[str, str]) -> dict[str, str]:
    """Libraries are found as they are here; addresses with passwords stay here."""
    return {name: value for name, value in present.items() if not name.startswith(("NEXTBEST_", "MLFLOW_"))}
