"""The blocks of a campaign valued on all cores, within little memory, taken up again where a run was killed.

    entities, in the order of their ids ─► blocks ─► worths ─► pruned ─► PARTS/<block>.npz      in processes
    all parts, in the order of the entities ─► one problem ─► the plan

The rules are asked customer by customer, in Python, so that only processes help. Each opens the features and the models
for itself; this one is one of them and values blocks too, from the last one on, so that a small campaign starts none.
A part is written whole or not at all, and tells if it was damaged since. PARTS lies beside the plan and is named by all
that its numbers depend on: entities, models, rules, features, terms. A run that asks for the same takes the parts up,
any other removes them; the plan is the same either way.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pandas as pd

from features.errors import ArtefactError
from features.progress import SILENT, Advance, Progress
from serving.allocation import Int64
from serving.batch import check_eligible
from serving.campaign_parts import Part, Terms, Worths, part_of
from serving.kept_parts import in_order_of_ids, kept_parts
from serving.orphans import stop_with_parent
from serving.worths import Valuer, open_valuer, worths

if TYPE_CHECKING:
    from features.catalog import Catalog
    from features.home import Build
    from serving.value import Worth

BLOCK = 5_000
"""Customers that a process values at once."""
FORMAT = 1
"""Raise it when parts mean something else: those of another format are never taken up."""


class Values(Protocol):
    """What blocks are valued with."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def unit(self) -> str: ...

    @property
    def known_by(self) -> str:
        """Changes with all that values depend on, but for the entities and the terms."""
        ...

    def worths(self, entities: pd.DataFrame) -> Worths:
        """The allowed contacts of one block."""
        ...

    def elsewhere(self) -> Callable[[], Values]:
        """Opens the same in another process; it goes there, so it holds names and numbers only."""
        ...


@dataclass(frozen=True)
class Champions:
    """A build, and what the champions of a registry say of its customers."""

    build: Build
    valuer: Valuer
    tracking_uri: str

    @classmethod
    def open(
        cls, build: Path, tracking_uri: str, days: int, online_url: str = "", counted: Worth | None = None
    ) -> Champions:
        """build: its folder. counted: the worth, where another process has gone through the whole log for it."""
        from features.home import Build

        opened = Build.open(build)
        return cls(opened, open_valuer(opened, tracking_uri, days, online_url, counted), tracking_uri)

    @property
    def catalog(self) -> Catalog:
        return self.build.catalog

    @property
    def unit(self) -> str:
        return self.valuer.worth.unit

    @property
    def known_by(self) -> str:
        return f"{self.build.fingerprint} {self.valuer.origin}"

    def worths(self, entities: pd.DataFrame) -> Worths:
        [block] = worths(self.build, self.valuer, entities, block=len(entities))
        return block

    def elsewhere(self) -> Callable[[], Champions]:
        days, counted = self.valuer.rules.days, replace(self.valuer.worth)  # without what it has worked out
        return partial(Champions.open, self.build.folder, self.tracking_uri, days, counted=counted)


@dataclass(frozen=True)
class Task:
    """A block to value. customers: of the whole campaign."""

    entities: pd.DataFrame
    customers: int
    terms: Terms
    path: Path

    def run(self, values: Values) -> None:
        """Write the block's part."""
        part_of(values.catalog, self.customers, values.worths(self.entities), self.terms).save(self.path)

    @property
    def done(self) -> bool:
        """Whether an earlier run wrote the part, and nothing has happened to it."""
        part = Part.load(self.path)
        return part is not None and part.customers == len(self.entities)


@dataclass(frozen=True)
class Valued:
    """The parts of a campaign. unit: of their values. order: int64 [n], the place of each part's customers in turn."""

    unit: str
    order: Int64
    paths: Sequence[Path]

    def __iter__(self) -> Iterator[Part]:
        for path in self.paths:
            part = Part.load(path)
            if part is None:
                raise ArtefactError(f"{path} was whole when it was written, however it is damaged; plan again")
            yield part


@contextmanager
def valued(
    opened: Callable[[], Values],
    entities: pd.DataFrame,
    terms: Terms,
    out: Path,
    origin: str,
    progress: Progress = SILENT,
    block: int = BLOCK,
    processes: int | None = None,
) -> Iterator[Valued]:
    """What was kept of all blocks, until the plan is written: the end of the context removes the parts.

    out: the plan's file. origin: what the entities are known by, their digest for example. processes: None: as many as
    this process has cores. InputError where another run is writing the same plan.
    """
    values = opened()
    check_eligible(entities, values.catalog)
    numbers = f"{terms.days} {terms.contacts} {terms.budget}"
    order = in_order_of_ids(entities)
    depends_on = (str(FORMAT), values.known_by, origin, numbers, str(len(entities)), str(block))
    with kept_parts(out, *depends_on) as folder:
        tasks = [
            Task(entities.iloc[order[start : start + block]], len(order), terms, folder / f"{start // block:06d}.npz")
            for start in range(0, len(order), block)
        ]
        with progress.step(f"value {len(entities):,} customers", len(entities)) as advance:
            left = [task for task in tasks if not task.done]
            advance(len(entities) - sum(len(task.entities) for task in left))
            most = min(len(left), processes or len(os.sched_getaffinity(0)))
            _value(left, values, most - 1, advance)
        unit = values.unit
        del values  # a bank's history takes memory that the plan needs
        yield Valued(unit, order, [task.path for task in tasks])


def _value(tasks: list[Task], values: Values, others: int, advance: Advance) -> None:
    """All tasks, here and in so many other processes; what was not begun when one fails never begins."""
    if others < 1:
        for task in tasks:
            task.run(values)
            advance(len(task.entities))
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may wait for them for ever
    pool = ProcessPoolExecutor(others, context, initializer=_open, initargs=(values.elsewhere(),))
    try:
        elsewhere = [pool.submit(_run, task) for task in tasks]
        for task, future in zip(tasks, elsewhere, strict=True):
            future.add_done_callback(_advancing(advance, len(task.entities)))
        for task, future in zip(reversed(tasks), reversed(elsewhere), strict=True):
            for other in elsewhere:
                if other.done() and not other.cancelled():
                    other.result()  # raises what went wrong there
            if future.cancel():
                task.run(values)
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


_mine: list[Values] = []
"""What this process values with, where it is one of the others."""


def _open(opened: Callable[[], Values]) -> None:
    stop_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # gone before it was looked at: nobody would stop this one
        raise SystemExit(1)
    _mine.append(opened())


def _run(task: Task) -> None:
    task.run(_mine[0])
