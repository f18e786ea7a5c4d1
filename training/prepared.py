"""What a training run stands on: an order met with the tables, its rows, and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from features.assemble import row_schema
from features.progress import SILENT, Progress
from features.schema import RowSchema
from training.dataset import Dataset, dataset, require_take_ups
from training.outcomes import Outcomes
from training.plan import Order, Plan, make_plan
from training.provenance import notes
from training.split import Split

if TYPE_CHECKING:
    from features.home import Build


@dataclass(frozen=True)
class Prepared:
    """parts: train, valid and test of `data`. decided: what became of the decisions, where rows are decisions."""

    plan: Plan
    schema: RowSchema
    data: Dataset
    split: Split
    parts: Mapping[str, Dataset]
    decided: Outcomes | None

    @property
    def test(self) -> Dataset:
        return self.parts["test"]

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


def prepare(order: Order, build: Build, progress: Progress = SILENT) -> Prepared:
    """Rows and parts of an order. Raises ModelNotPossible, InputError; nothing is written."""
    with progress.step("choose the rows"):
        plan, known = make_plan(order, build.bank)
        spine = plan.spine(known, plan.end)
        decided = plan.outcomes(known, plan.end)
        schema = row_schema(known, plan.end_time)
    data = dataset(build, plan.question, spine, schema, progress)
    require_take_ups(data, "rows with an outcome")
    split = plan.split(data)
    parts = {name: data.take(getattr(split, name)) for name in ("train", "valid", "test")}
    require_take_ups(parts["train"], "rows with an outcome to learn from")
    return Prepared(plan, schema, data, split, parts, decided)
