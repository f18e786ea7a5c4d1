"""Scorers over rows: log-utilities of every candidate and of the outside option.

`Layout` says where in a row the candidates are; `pair_matrix` lays rows out as (row, candidate) pairs, for
fitting and for scoring alike. PyTorch's scorer is in `serving.network`, so that this module does without
torch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lightgbm
import numpy as np
import numpy.typing as npt

from features.errors import ArtefactError
from features.schema import Float32, Float64, Rows, RowSchema
from serving.booster_text import NotCompiled
from serving.question import Block, Question

if TYPE_CHECKING:
    from serving.compiled_trees import TreeWalk

Index = npt.NDArray[np.int64]

SCORER_FILE = "scorer.json"
PAIR_CELLS = 8_000_000
"""Cells of one pair matrix while scoring: 32 MB, whatever the number of rows."""
WORTH_COMPILING = 50_000
"""Pairs of a customer and a candidate from which on trees that were only just learned are compiled first."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Where the candidates of a question are in rows of one schema.

    fingerprint: of the row schema. positions: [m], each candidate's index on the block's candidate axis.
    """

    fingerprint: str
    block: Block
    positions: tuple[int, ...]
    customer_names: tuple[str, ...]
    candidate_names: tuple[str, ...]

    @classmethod
    def of(cls, question: Question, schema: RowSchema) -> Layout:
        """The layout of `question` in rows of `schema`; ArtefactError when a candidate is not in the rows."""
        known = schema.products if question.block == "product" else schema.channels
        missing = [candidate for candidate in question.candidates if candidate not in known]
        if missing:
            raise ArtefactError(
                f"the candidates of {question.model} are {question.block}s of the feature rows, however "
                f"{', '.join(missing)} are not; build the features again, then train"
            )
        names = schema.product_names if question.block == "product" else schema.channel_names
        positions = tuple(known.index(candidate) for candidate in question.candidates)
        return cls(schema.fingerprint, question.block, positions, schema.customer_names, names)

    def customer(self, rows: Rows) -> Float32:
        """The customer block, float32 [n, C]; ArtefactError when the rows have another schema."""
        if rows.schema.fingerprint != self.fingerprint:
            raise ArtefactError(
                f"the model was trained on feature rows {self.fingerprint[:12]}, however these rows are "
                f"{rows.schema.fingerprint[:12]}; train again on the present features"
            )
        return rows.customer

    def candidates(self, rows: Rows) -> Float32:
        """The block of the candidates in the question's order, float32 [n, m, K]."""
        block = rows.product if self.block == "product" else rows.channel
        if self._first == block.shape[1]:
            return block
        return block[:, list(self.positions)]

    @cached_property
    def _first(self) -> int:
        """How many of a block's candidates these are where they are its first ones in order; -1 where they are not."""
        return len(self.positions) if self.positions == tuple(range(len(self.positions))) else -1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Layout:
        return cls(
            fingerprint=raw["fingerprint"],
            block=raw["block"],
            positions=tuple(raw["positions"]),
            customer_names=tuple(raw["customer_names"]),
            candidate_names=tuple(raw["candidate_names"]),
        )

    @property
    def pair_names(self) -> tuple[str, ...]:
        """The columns of a pair matrix, in order."""
        return (*self.customer_names, *self.candidate_names, "prior", "candidate")


def pair_matrix(customer: Float32, candidates: Float32, prior: Float32, row: Index, candidate: Index) -> Float32:
    """One line per pair of a row and a candidate, float32 [k, C + K + 2] in the order of `Layout.pair_names`.

    customer: [n, C]. candidates: [n, m, K]. prior: [m + 1]. row, candidate: [k], indices of each pair.
    """
    width, depth = customer.shape[1], candidates.shape[2]
    pairs = np.empty((len(row), width + depth + 2), dtype=np.float32)
    pairs[:, :width] = customer[row]
    pairs[:, width : width + depth] = candidates[row, candidate]
    pairs[:, -2] = prior[candidate]
    pairs[:, -1] = candidate
    return pairs


class PriorScorer:
    """The same utilities for everyone: the log of how often each option is chosen when it can be chosen."""

    family: ClassVar[str] = "prior"

    def __init__(self, layout: Layout, prior: Float32) -> None:
        self.layout = layout
        self.prior = prior

    def utilities(self, rows: Rows) -> Float32:
        """Log-utilities, float32 [n, m + 1], the outside option last."""
        return np.tile(self.prior, (len(self.layout.customer(rows)), 1))

    def save(self, folder: Path) -> None:
        write_scorer_file(folder, self.family, self.layout, self.prior)

    @classmethod
    def load(cls, folder: Path) -> PriorScorer:
        layout, prior, _ = read_scorer_file(folder, cls.family)
        return cls(layout, prior)


class LightGBMScorer:
    """Prior plus the sum of trees over pair lines.

    Only differences of utilities matter (Train 2009, "Discrete choice methods with simulation", 2.5), so the
    outside option stays at its prior and the trees say how much more or less than usual a candidate is worth.

    The trees are walked by `serving.compiled_trees`, which says the same to the last bit, or else by LightGBM.
    """

    family: ClassVar[str] = "lightgbm"
    file: ClassVar[str] = "booster.txt"

    def __init__(self, layout: Layout, prior: Float32, booster: lightgbm.Booster, threads: int = 1) -> None:
        self.layout = layout
        self.prior = prior
        self.booster = booster
        self.threads = threads

    @cached_property
    def compiled(self) -> TreeWalk | NotCompiled:
        """The trees compiled, or why they are not; some tenths of a second the first time."""
        from serving.compiled_trees import compiled

        try:
            return compiled(self.booster, len(self.layout.customer_names), len(self.layout.candidate_names), self.prior)
        except NotCompiled as reason:
            log.warning("%d trees are walked by LightGBM: %s", self.booster.num_trees(), reason)
            return reason

    def utilities(self, rows: Rows) -> Float32:
        """Log-utilities, float32 [n, m + 1], the outside option last."""
        customer, candidates = self.layout.customer(rows), self.layout.candidates(rows)
        utilities = np.empty((len(rows), len(self.prior)), dtype=np.float32)  # [n, m + 1]
        utilities[:] = self.prior
        utilities[:, :-1] += self._sums(customer, candidates)
        return utilities

    def _sums(self, customer: Float32, candidates: Float32) -> Float64:
        """What the trees add, float64 [n, m]. What was only just learned is compiled where there is much to say."""
        if "compiled" in self.__dict__ or candidates.shape[0] * candidates.shape[1] >= WORTH_COMPILING:
            walk = self.compiled
            if not isinstance(walk, NotCompiled):
                return walk.sums(customer, candidates)
        return self._by_lightgbm(customer, candidates)

    def _by_lightgbm(self, customer: Float32, candidates: Float32) -> Float64:
        n, m = candidates.shape[:2]
        sums = np.empty((n, m))
        for part in blocks(n, PAIR_CELLS // (m * len(self.layout.pair_names)) + 1):
            count = part.stop - part.start
            row, candidate = np.repeat(np.arange(count), m), np.tile(np.arange(m), count)
            pairs = pair_matrix(customer[part], candidates[part], self.prior, row, candidate)  # [count * m, F]
            raw = self.booster.predict(pairs, raw_score=True, num_threads=self.threads)
            sums[part] = np.asarray(raw).reshape(count, m)
        return sums

    @property
    def uncompiled(self) -> str:
        return str(self.compiled) if isinstance(self.compiled, NotCompiled) else ""

    def check_compiled(self, rows: Rows) -> None:
        """Leave the trees to LightGBM unless the compiled ones say the same of these rows, bit for bit."""
        if isinstance(self.compiled, NotCompiled):
            return
        customer, candidates = self.layout.customer(rows), self.layout.candidates(rows)
        if not np.array_equal(self.compiled.sums(customer, candidates), self._by_lightgbm(customer, candidates)):
            self.compiled = NotCompiled("compiled trees must say what LightGBM says, however not of this bank's rows")
            log.warning("%d trees are walked by LightGBM: %s", self.booster.num_trees(), self.compiled)

    def save(self, folder: Path) -> None:
        write_scorer_file(folder, self.family, self.layout, self.prior)
        (folder / self.file).write_text(self.booster.model_to_string(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LightGBMScorer:
        """Verify the files first (`ChoiceModel.load` does): LightGBM ends the process on a truncated file."""
        layout, prior, _ = read_scorer_file(folder, cls.family)
        text = (folder / cls.file).read_text(encoding="utf-8")
        check_trees(text, len(layout.pair_names))
        booster = lightgbm.Booster(model_str=text)
        if booster.num_feature() != len(layout.pair_names):
            raise ArtefactError(
                f"the trees read {len(layout.pair_names)} columns, however {cls.file} has {booster.num_feature()}; "
                "train again"
            )
        scorer = cls(layout, prior, booster)
        _ = scorer.compiled  # now, and not when the first customer waits for it
        return scorer


def write_scorer_file(
    folder: Path, family: str, layout: Layout, prior: Float32, config: dict[str, Any] | None = None
) -> None:
    """Write what every family keeps: its name, layout, prior [m + 1] and the family's own `config`."""
    content = {
        "family": family,
        "layout": layout.to_dict(),
        "prior": [float(value) for value in prior],
        "config": config or {},
    }
    (folder / SCORER_FILE).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def read_scorer_file(folder: Path, family: str) -> tuple[Layout, Float32, dict[str, Any]]:
    """Layout, prior [m + 1] and config; ArtefactError when the file is of another family."""
    raw: dict[str, Any] = json.loads((folder / SCORER_FILE).read_text(encoding="utf-8"))
    if raw["family"] != family:
        raise ArtefactError(f"{folder} should hold a {family} scorer, however it holds {raw['family']!r}")
    prior = np.asarray(raw["prior"], dtype=np.float32)
    check_finite("the prior", prior)
    return Layout.from_dict(raw["layout"]), prior, raw["config"]


def check_finite(name: str, numbers: npt.NDArray[np.floating[Any]]) -> None:
    """ArtefactError unless all are finite: one that is not makes some customers' scores vanish, others' not."""
    if not np.isfinite(numbers).all():
        raise ArtefactError(f"{name} must be finite numbers, however some are not; train again")


def check_trees(text: str, columns: int) -> None:
    """ArtefactError unless the trees of a booster stay inside of themselves and of the line that they read.

    LightGBM takes them as they are, and follows a number that leads outside to whatever lies there.
    """
    leaves = 0
    for line in text.splitlines():
        key, _, numbers = line.partition("=")
        if key == "num_leaves":
            leaves = int(numbers)
        elif key == "leaf_value":
            check_finite("leaf values", np.array(numbers.split(), np.float64))
        elif key in ("split_feature", "left_child", "right_child"):
            least, most = (0, columns) if key == "split_feature" else (-leaves, leaves - 1)
            values = np.array(numbers.split(), np.int64)
            if ((values < least) | (values >= most)).any():
                raise ArtefactError(
                    f"{key} of a tree must lie in {least}..{most - 1}, however some do not; train again"
                )


def blocks(rows: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover `rows`."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))
