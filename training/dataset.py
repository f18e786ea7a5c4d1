"""From a spine to examples: point-in-time rows of the one row builder, masks of holdings, labels as choices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from features.assemble import assemble
from features.columns import AS_OF, CUSTOMER_ID
from features.errors import InputError
from features.history import history
from features.progress import SILENT, Progress
from features.schema import Bool, Int64, Rows, RowSchema, Texts
from serving.eligibility import rankable
from serving.question import Question
from training.examples import Examples
from training.labels import as_times
from training.spine import Spine

if TYPE_CHECKING:
    from features.home import Build
    from training.row_store import RowStore

FEWEST = 20
"""Rows in which something was taken: fewer teach nothing that could be shown."""


@dataclass(frozen=True)
class Dataset:
    """n examples with what they are about. available: bool [n, m], after holdings; spine.taken holds only those.

    groups: [m], see `Examples`.
    """

    question: Question
    spine: Spine
    rows: Rows
    available: Bool
    groups: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.spine)

    def take(self, index: Int64 | Bool) -> Dataset:
        return Dataset(self.question, self.spine.take(index), self.rows.take(index), self.available[index], self.groups)

    @property
    def customer_id(self) -> Texts:
        return self.spine.customer_id

    @property
    def taken(self) -> Bool:
        return self.spine.taken

    @property
    def examples(self) -> Examples:
        """What the families learn from. Taken together = a share each of one choice; nothing taken = the outside."""
        taken = self.spine.taken
        count = taken.sum(axis=1, keepdims=True)
        chosen = np.concatenate([taken / np.maximum(count, 1), count == 0], axis=1).astype(np.float32)
        return Examples(
            rows=self.rows,
            available=np.concatenate([self.available, self.spine.outside[:, None]], axis=1),
            chosen=chosen,
            weight=np.ones(len(self), dtype=np.float32),
            taken=taken,
            at=self.spine.as_of / 1e6,
            groups=self.groups,
        )

    @property
    def judged_for_ranking(self) -> Bool:
        """bool [n]: rows whose ranking is judged: occasions where there are any, else every row with a take-up."""
        taken = np.asarray(self.spine.taken.any(axis=1), dtype=np.bool_)
        occasions = np.asarray(self.spine.sort == "occasion", dtype=np.bool_)
        return taken & occasions if occasions.any() else taken

    @property
    def judged_for_probability(self) -> Bool:
        """bool [n]: rows whose probabilities are judged: those in which nothing could happen, where it can at all."""
        return self.spine.outside if self.question.outside else np.ones(len(self), np.bool_)


def dataset(
    build: Build,
    question: Question,
    spine: Spine,
    schema: RowSchema,
    progress: Progress = SILENT,
    store: RowStore | None = None,
) -> Dataset:
    """The examples of a spine; rows that cannot teach are left out and counted. store: see `rows_at`.

    A held or ineligible product is not available, and not a label either. Left out: rows in which nothing can be
    chosen, and rows without the outside option in which nothing that could be chosen was taken.
    """
    rows = rows_at(build, spine.customer_id, spine.as_of, schema, progress, store)
    available = spine.offered
    if question.block == "product":
        available = available & rankable(rows, build.catalog, [None] * len(rows))
    taken = spine.taken & available
    usable = available.any(axis=1) & (spine.outside | taken.any(axis=1))
    left_out = {"nothing could be chosen, or only what the customer held was taken": int((~usable).sum())}
    kept = replace(spine, taken=taken).take(usable, left_out)
    groups = build.catalog.product_groups if question.block == "product" else ()
    return Dataset(question, kept, rows.take(usable), available[usable], groups)


def rows_at(
    build: Build,
    customer_id: Texts,
    as_of: Int64,
    schema: RowSchema,
    progress: Progress = SILENT,
    store: RowStore | None = None,
) -> Rows:
    """Model rows of n customers, each from what was known at its own moment. customer_id: [n]; as_of: int64 [n], µs.

    store: of rows that were computed before; None: compute all. The rows are the same, to the last bit.
    """

    def compute(customer_id: Texts, as_of: Int64) -> Rows:
        states = history(build, pd.DataFrame({CUSTOMER_ID: customer_id, AS_OF: as_times(as_of)}), progress)
        with progress.step(f"assemble {len(as_of)} rows"):
            return assemble(states, as_of / 1e6, schema)

    if store is None:
        return compute(customer_id, as_of)
    return store.rows(build, customer_id, as_of, schema, compute)


def require_take_ups(data: Dataset, what: str) -> None:
    """InputError when too few rows have a label other than "nothing"."""
    found = int(data.spine.taken.any(axis=1).sum())
    if found < FEWEST:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in data.spine.left_out.items() if count)
        raise InputError(
            f"{data.question.model} needs at least {FEWEST} {what}, however {found} are left of {len(data)} rows"
            f"{f' (left out: {reasons})' if reasons else ''}; bring more history, or choose another --horizon"
        )
