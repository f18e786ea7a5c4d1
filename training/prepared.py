"""What a training run stands on: an order met with the tables, its rows, and their parts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from features.assemble import row_schema
from features.progress import SILENT, Progress
from features.schema import RowSchema
from training.dataset import Dataset, dataset, require_take_ups
from training.outcomes import Outcomes
from training.plan import Order, Plan, make_plan
from training.provenance import notes
from training.split import Split
from training.tune import inner

if TYPE_CHECKING:
    from features.home import Build
    from training.row_store import RowStore


@dataclass(frozen=True)
class Prepared:
    """parts: train, valid and test of `data`. decided: what became of the decisions, where rows are decisions.

    store: of rows that were computed before, for whoever needs more. spent: rows_seconds, rows_reused, rows_computed.
    """

    plan: Plan
    schema: RowSchema
    data: Dataset
    split: Split
    parts: Mapping[str, Dataset]
    decided: Outcomes | None
    store: RowStore | None = None
    spent: Mapping[str, float] = field(default_factory=dict)

    @property
    def test(self) -> Dataset:
        return self.parts["test"]

    @property
    def learned(self) -> Dataset:
        """All that was known before the test rows begin: train and valid, and the rows across their border."""
        split = self.split
        if split.borders is None:
            return self.data.take(np.sort(np.concatenate([split.train, split.valid])))
        return self.data.take(self.data.spine.closes <= split.borders[1])

    @property
    def counts(self) -> dict[str, int]:
        """Rows per part, in the embargo and in all."""
        parts = {name: len(part) for name, part in self.parts.items()}
        return parts | {"embargoed": self.split.embargoed, "all": len(self.data)}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, and why."""
        told = (f"{count} rows left out: {why}" for why, count in self.data.spine.left_out.items() if count)
        return (*told, *(notes(self.decided) if self.decided is not None else ()))


def prepare(order: Order, build: Build, progress: Progress = SILENT, store: RowStore | None = None) -> Prepared:
    """Rows and parts of an order. Raises ModelNotPossible, InputError; nothing is written but rows to the store."""
    with progress.step("choose the rows"):
        plan, known = make_plan(order, build.bank)
        decided = plan.outcomes(known, plan.end)
        spine = plan.spine(known, plan.end, decided=decided)
        schema = row_schema(known, plan.end_time)
    started, before = time.perf_counter(), 0 if store is None else store.reused
    data = dataset(build, plan.question, spine, schema, progress, store)
    reused = 0 if store is None else store.reused - before
    spent = {"rows_seconds": time.perf_counter() - started, "rows_reused": reused, "rows_computed": len(spine) - reused}
    require_take_ups(data, "rows with an outcome")
    split = plan.split(data)
    parts = {name: data.take(getattr(split, name)) for name in ("train", "valid", "test")}
    require_take_ups(parts["train"], "rows with an outcome to learn from")
    if order.tune:
        inner(parts["train"])  # refuses what cannot be split once more
    return Prepared(plan, schema, data, split, parts, decided, store, spent)
