"""The blocks of a campaign valued on all cores, within little memory, taken up again where a run was killed.

    entities ─► blocks, in their order ─► worths ─► pruned ─► PARTS/<block>.npz      in processes

The rules are asked customer by customer, in Python, so that only processes help. Each opens the features and the models
for itself; this one is one of them and values blocks too, from the last one on, so that a small campaign starts none.
A part is written whole or not at all, and tells if it was damaged since. PARTS lies beside the plan and is named by all
that its numbers depend on: entities, models, rules, features, terms. A run that asks for the same takes the parts up,
any other removes them; the plan is the same either way.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from features.errors import ArtefactError
from features.progress import SILENT, Advance, Progress
from serving.batch import check_eligible
from serving.batch_file import kept_parts
from serving.campaign_parts import Part, Terms, part_of
from serving.orphans import stop_with_parent
from serving.worths import Valuer, open_valuer, worths

if TYPE_CHECKING:
    from features.home import Build

BLOCK = 5_000
"""Customers that a process values at once."""
FORMAT = 1
"""Raise it when parts mean something else: those of another format are never taken up."""


class Opener(Protocol):
    """Opens what blocks are valued with, in whatever process; it goes there, so it holds names and numbers only."""

    def __call__(self) -> tuple[Build, Valuer]: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Opening:
    """The features of a build's folder, and the champions of a registry."""

    build: Path
    tracking_uri: str
    days: int
    online_url: str = ""

    def __call__(self) -> tuple[Build, Valuer]:
        from features.home import Build

        build = Build.open(self.build)
        return build, open_valuer(build, self.tracking_uri, self.days, self.online_url)


@dataclass(frozen=True)
class Task:
    """A block to value. customers: of the whole campaign."""

    entities: pd.DataFrame
    customers: int
    terms: Terms
    path: Path

    def run(self, build: Build, valuer: Valuer) -> None:
        """Write the block's part."""
        [block] = worths(build, valuer, self.entities, block=max(1, len(self.entities)))
        part_of(build.catalog, self.customers, block, self.terms).save(self.path)

    @property
    def done(self) -> bool:
        """Whether an earlier run wrote the part, and nothing has happened to it."""
        part = Part.load(self.path)
        return part is not None and part.customers == len(self.entities)


@contextmanager
def valued(
    opener: Opener,
    entities: pd.DataFrame,
    terms: Terms,
    out: Path,
    origin: str,
    progress: Progress = SILENT,
    block: int = BLOCK,
    processes: int | None = None,
) -> Iterator[tuple[str, Iterator[Part]]]:
    """The unit of the values, and the parts of all blocks in their order.

    They are kept until the plan is written: the end of the context removes them. out: the plan's file. origin: what the
    entities are known by, their digest for example. processes: None: as many as this process has cores. InputError
    where another run is writing the same plan.
    """
    build, valuer = opener()
    check_eligible(entities, build.catalog)
    numbers = f"{terms.days} {terms.contacts} {terms.budget}"
    told = (str(FORMAT), build.fingerprint, valuer.origin, origin, numbers, str(len(entities)), str(block))
    known_by = hashlib.sha256("\0".join(told).encode()).hexdigest()
    out.parent.mkdir(parents=True, exist_ok=True)
    with kept_parts(out, known_by[:32]) as folder:
        tasks = [
            Task(entities.iloc[start : start + block], len(entities), terms, folder / f"{start // block:06d}.npz")
            for start in range(0, len(entities), block)
        ]
        with progress.step(f"value {len(entities):,} customers", len(entities)) as advance:
            left = [task for task in tasks if not task.done]
            advance(len(entities) - sum(len(task.entities) for task in left))
            most = min(len(left), processes or len(os.sched_getaffinity(0)))
            _value(left, opener, build, valuer, most - 1, advance)
        unit = valuer.worth.unit
        del build, valuer  # a bank's history takes memory that the plan needs
        yield unit, (_whole(task.path) for task in tasks)


def digest_of(path: Path) -> str:
    """What a file of entities is known by."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _value(tasks: list[Task], opener: Opener, build: Build, valuer: Valuer, others: int, advance: Advance) -> None:
    """All tasks, here and in so many other processes; what was not begun when one fails never begins."""
    if others < 1:
        for task in tasks:
            task.run(build, valuer)
            advance(len(task.entities))
        return
    pool = ProcessPoolExecutor(others, multiprocessing.get_context("spawn"), initializer=stop_with_parent)
    try:
        elsewhere = [pool.submit(_run, opener, task) for task in tasks]
        for task, future in zip(tasks, elsewhere, strict=True):
            future.add_done_callback(_advancing(advance, len(task.entities)))
        for task, future in zip(reversed(tasks), reversed(elsewhere), strict=True):
            for other in elsewhere:
                if other.done() and not other.cancelled():
                    other.result()  # raises what went wrong there
            if future.cancel():
                task.run(build, valuer)
                advance(len(task.entities))
        for future in elsewhere:
            if not future.cancelled():
                future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _advancing(advance: Advance, customers: int) -> Callable[[Future[None]], None]:
    def told(future: Future[None]) -> None:
        if not future.cancelled() and future.exception() is None:
            advance(customers)

    return told


def _run(opener: Opener, task: Task) -> None:
    task.run(*_opened(opener))


@lru_cache(maxsize=1)
def _opened(opener: Opener) -> tuple[Build, Valuer]:
    """Opened once per process."""
    return opener()


def _whole(path: Path) -> Part:
    part = Part.load(path)
    if part is None:
        raise ArtefactError(
            f"{path} is whole once it is written, however it was damaged since; plan the campaign again"
        )
    return part
