"""The content model: what sending each content, or nothing, is expected to earn for each customer.

    reward(x, a) = P(take-up | x, a) × worth of a take-up through a − cost of a message with a

a is a content of the catalogue or no contact, which stands last. P is the rate of the arm, the same for everybody, and
where a model was learned that surely earns more by it, the sum of trees over (customer, content) lines beside it, as in
`scorers.LightGBMScorer`. What cannot be sent, or was never tried, earns nothing and costs its message.

content.json    the contents, their rates, worths and costs
rows.json       the schema of the rows that it reads
booster.txt     the trees; absent where everybody gets the same
manifest.json   SHA-256 of each of the above
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm
import numpy as np

from features.catalog import Catalog
from features.errors import ArtefactError
from features.schema import Bool, Float32, Float64, Int64, Rows, RowSchema
from serving.choice import ROWS_FILE, verify, write_verified
from serving.registry import Registry, misfit
from serving.scorers import PAIR_CELLS, blocks, check_finite, check_trees
from serving.sendable import sendable

if TYPE_CHECKING:
    from serving.registry import Registered

CONTENT_MODEL = "content-choice"
CONTENT_FILE = "content.json"
BOOSTER_FILE = "booster.txt"
_RARE = 1e-9


@dataclass(frozen=True)
class Arms:
    """K contents and, last, no contact. product: int64 [K], position in the rows' products, -1 for none.

    tried: bool [K + 1], the log tells of it. rate: float64 [K + 1], take-ups per decision. worth, cost: float64
    [K + 1], per take-up and per decision, in `unit`.
    """

    contents: tuple[str, ...]
    product: Int64
    tried: Bool
    rate: Float64
    worth: Float64
    cost: Float64
    unit: str

    def __len__(self) -> int:
        return len(self.contents) + 1

    @property
    def logit(self) -> Float64:
        """float64 [K + 1]."""
        rate = np.clip(self.rate, _RARE, 1.0 - _RARE)
        return np.asarray(np.log(rate) - np.log1p(-rate))

    @property
    def value(self) -> Float64:
        """What each earns on average, float64 [K + 1]."""
        return np.asarray(self.rate * self.worth - self.cost)


@dataclass(frozen=True)
class ContentModel:
    """Arms and, where everybody does not get the same, the trees that tell customers apart.

    margin: how much more than with the arm that is best on average is to be earned, or that one is kept; in the unit.
    """

    arms: Arms
    row_schema: RowSchema
    booster: lightgbm.Booster | None = None
    margin: float = 0.0
    threads: int = 1

    @property
    def family(self) -> str:
        return "constant" if self.booster is None else "lightgbm"

    def rewards(self, rows: Rows, available: Bool) -> Float64:
        """Expected reward of each arm, float64 [n, K + 1], no contact last. available: bool [n, K + 1].

        ArtefactError when the rows have another schema than the model.
        """
        if rows.schema.fingerprint != self.row_schema.fingerprint:
            raise ArtefactError(
                f"{CONTENT_MODEL} was trained on feature rows {self.row_schema.fingerprint[:12]}, however these rows "
                f"are {rows.schema.fingerprint[:12]}; train again on the present features"
            )
        arms = self.arms
        values = self.chances(rows, available) * arms.worth - arms.cost
        kept = gain(values, arms.value, available) <= self.margin
        values = np.where(kept[:, None], arms.value, values)
        return np.where(available, values, np.minimum(values[:, -1:], 0.0) - arms.cost)

    def chances(self, rows: Rows, available: Bool) -> Float64:
        """P(take-up), float64 [n, K + 1]; the arm's own rate where it is not available, which nobody asks."""
        logit = np.tile(self.arms.logit, (len(rows), 1))
        if self.booster is not None:
            width = len(rows.schema.customer_names) + len(rows.schema.product_names) + 2
            for part in blocks(len(rows), PAIR_CELLS // (len(self.arms) * width) + 1):
                row, arm = np.nonzero(available[part])
                lines = content_lines(rows.take(part), self.arms.product, row, arm)
                raw = self.booster.predict(lines, raw_score=True, num_threads=self.threads)
                logit[part][row, arm] += np.asarray(raw)
        return np.asarray(1.0 / (1.0 + np.exp(-logit)))

    def available(self, rows: Rows, catalog: Catalog, eligible: Sequence[frozenset[str] | None] | None = None) -> Bool:
        """bool [n, K + 1]: contents that were tried and may be sent; no contact always is."""
        may = sendable(rows, catalog, eligible)
        return np.concatenate([may & self.arms.tried[:-1], np.ones((len(rows), 1), np.bool_)], axis=1)

    def save(self, folder: Path) -> None:
        """Write the model to a new `folder`, all of it or nothing."""
        arms = self.arms
        content = {
            "contents": arms.contents,
            **{name: getattr(arms, name).tolist() for name in ("product", "tried", "rate", "worth", "cost")},
            "unit": arms.unit,
            "margin": self.margin,
        }

        def write(draft: Path) -> None:
            text = json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1)
            (draft / CONTENT_FILE).write_text(text, encoding="utf-8")
            (draft / ROWS_FILE).write_text(self.row_schema.to_json(), encoding="utf-8")
            if self.booster is not None:
                (draft / BOOSTER_FILE).write_text(self.booster.model_to_string(), encoding="utf-8")

        write_verified(folder, write)

    @classmethod
    def load(cls, folder: Path) -> ContentModel:
        """Load a saved model; ArtefactError when it is missing, damaged or makes no sense."""
        verify(folder)
        try:
            schema = RowSchema.from_json((folder / ROWS_FILE).read_text(encoding="utf-8"))
            raw = json.loads((folder / CONTENT_FILE).read_text(encoding="utf-8"))
            arms, margin = _arms(raw, len(schema.products)), float(raw["margin"])
            booster = _booster(folder, line_width(schema)) if (folder / BOOSTER_FILE).exists() else None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(
                f"{folder} is not a content model that this version reads: {error!r}; train again"
            ) from error
        return cls(arms, schema, booster, margin)


@dataclass(frozen=True)
class LoadedContent:
    """A content model and where in the registry it came from."""

    model: ContentModel
    version: str
    run_id: str


def resolve_content(reference: str, tracking_uri: str) -> LoadedContent:
    """The content model of that alias, version or run; ArtefactError where there is none to use."""
    registry = Registry(tracking_uri)
    found: Registered = registry.find(CONTENT_MODEL, reference)
    return LoadedContent(ContentModel.load(registry.folder(found)), found.version, found.run_id)


def unfit(model: ContentModel, present: RowSchema, catalog: Catalog) -> str | None:
    """Why a model cannot score with this build; None where it can."""
    contents = tuple(content.id for content in catalog.contents)
    if model.arms.contents != contents:
        return f"trained on {len(model.arms.contents)} contents, however the catalogue has others now; train again"
    return misfit(model.row_schema, present)


def best_first(values: Float64, available: Bool) -> Int64:
    """int64 [n]: the available arm of the highest value, float64 [K + 1] or [n, K + 1]; no contact wins ties."""
    silent_first = np.where(available, values, -np.inf)[:, ::-1]
    return np.asarray(available.shape[1] - 1 - np.argmax(silent_first, axis=1), dtype=np.int64)


def gain(values: Float64, average: Float64, available: Bool) -> Float64:
    """What the best arm of each customer is expected to earn more than the one that is best on average, float64 [n].

    values: float64 [n, K + 1], expected with the customer. average: float64 [K + 1], with everybody.
    """
    row = np.arange(len(values))
    return np.asarray(values[row, best_first(values, available)] - values[row, best_first(average, available)])


def content_lines(rows: Rows, product: Int64, row: Int64, arm: Int64) -> Float32:
    """One line per pair of a row and an arm, float32 [k, C + K + 2]: customer, its product's columns, product, arm.

    The columns of the product are missing for contents about none and for no contact.
    """
    of_arm = np.append(product, -1)[arm]
    width, depth = rows.customer.shape[1], rows.product.shape[2]
    lines = np.empty((len(row), width + depth + 2), dtype=np.float32)
    lines[:, :width] = rows.customer[row]
    lines[:, width : width + depth] = np.nan
    about = of_arm >= 0
    lines[about, width : width + depth] = rows.product[row[about], of_arm[about]]
    lines[:, -2] = of_arm + 1.0  # LightGBM takes a negative category for a missing one
    lines[:, -1] = arm
    return lines


def line_width(schema: RowSchema) -> int:
    """Columns of a line."""
    return len(schema.customer_names) + len(schema.product_names) + 2


def _arms(raw: Mapping[str, Any], products: int) -> Arms:
    contents = tuple(str(name) for name in raw["contents"])
    numbers = {name: np.array(raw[name], np.float64) for name in ("rate", "worth", "cost")}
    tried, product = np.array(raw["tried"], np.bool_), np.array(raw["product"], np.int64)
    for name, values in {**numbers, "tried": tried}.items():
        if values.shape != (len(contents) + 1,):
            raise ValueError(f"{name} has the shape {values.shape}")
    for name, values in numbers.items():
        check_finite(name, values)
    if ((numbers["rate"] < 0) | (numbers["rate"] > 1)).any() or (numbers["cost"] < 0).any():
        raise ValueError("rates lie in 0..1 and costs are not negative")
    if product.shape != (len(contents),) or ((product < -1) | (product >= products)).any():
        raise ValueError(f"product is none of the {products} products of the rows")
    return Arms(contents, product, tried, **numbers, unit=str(raw["unit"]))


def _booster(folder: Path, columns: int) -> lightgbm.Booster:
    """LightGBM ends the process on a truncated file and follows what leads outside: the trees are checked first."""
    text = (folder / BOOSTER_FILE).read_text(encoding="utf-8")
    check_trees(text, columns)
    booster = lightgbm.Booster(model_str=text)
    if booster.num_feature() != columns:
        raise ArtefactError(f"the trees read {columns} columns, however they have {booster.num_feature()}; train again")
    return booster
