"""Columns that tell the outcome are found whatever their shape, and honest ones are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from features.errors import ArtefactError
from features.schema import Bool, Rows, RowSchema
from serving.question import Question
from training.dataset import Dataset
from training.metrics import auc
from training.promotion.leak import ANY, Leaks, Separation, _auc, binned, leaks
from training.spine import Spine

ROWS = 4000
PRODUCTS = ("card", "loan", "fund")
Columns = Mapping[str, np.ndarray]


def data(taken: Bool, columns: Columns, pairs: Columns | None = None, occasions: Bool | None = None) -> Dataset:
    """Rows about these columns, a customer each. taken: bool [n, m]; columns: [n] each; pairs: [n, m] each."""
    count, width = taken.shape
    pairs = pairs or {}
    customer = np.stack([*columns.values()], axis=1).astype(np.float32) if columns else np.zeros((count, 0), np.float32)
    product = np.zeros((count, width, len(pairs)), np.float32)
    for place, values in enumerate(pairs.values()):
        product[:, :, place] = values
    flags = (False,) * width
    names = tuple(columns), tuple(pairs), ("touches",)
    schema = RowSchema(PRODUCTS[:width], flags, ("app",), (), (), "UTC", *names)
    channel, nobody = np.zeros((count, 1, 1), np.float32), np.zeros((count, 1), np.bool_)
    rows = Rows(customer, product, channel, np.zeros((count, width), np.bool_), nobody, schema)
    asked = np.zeros(count, np.bool_) if occasions is None else occasions
    offered = np.ones((count, width), np.bool_)
    ids = np.array([f"c{place}" for place in range(count)], dtype=object)
    at, sort = np.arange(count, dtype=np.int64), np.where(asked, "occasion", "snapshot").astype(object)
    spine = Spine(ids, at, at + 1, sort, offered, ~asked, taken, np.full(count, -1))
    question = Question("next-best-product", PRODUCTS[:width], "product", "joint", True, 30.0)
    return Dataset(question, spine, rows, offered)


@pytest.fixture(scope="module")
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def card(draw: np.random.Generator) -> Bool:
    """One in ten takes the card, bool [n, 1]."""
    return np.asarray(draw.random((ROWS, 1)) < 0.1)


@pytest.mark.parametrize(
    "shape",
    {
        "as it is": lambda taken, noise: taken + 0.1 * noise,
        "upside down": lambda taken, noise: -3.0 * taken + 0.1 * noise,
        "missing for the others": lambda taken, noise: np.where(taken, noise, np.nan),
        "missing for takers": lambda taken, noise: np.where(taken, np.nan, noise),
        "in the middle": lambda taken, noise: np.where(taken, 0.0, np.sign(noise) * (1 + np.abs(noise))),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_column_that_tells_is_found_whatever_its_shape(
    shape: tuple[str, Callable[..., np.ndarray]], card: Bool, draw: np.random.Generator
) -> None:
    column = shape[1](card[:, 0], draw.normal(size=ROWS))
    found = leaks(data(card, {"age": draw.normal(size=ROWS), "result": column}), {"result": 0.8})
    assert found.columns[0].column == "result"
    assert found.columns[0].auc > 0.95
    assert found.found


def test_noise_separates_nobody_however_many_values_it_has(card: Bool, draw: np.random.Generator) -> None:
    noise = {f"noise {place}": draw.normal(size=ROWS) for place in range(20)}
    words = {"code": draw.integers(20, size=ROWS)}
    found = leaks(data(card, noise | words), dict.fromkeys([*noise, *words], 0.05))
    assert found.columns[0].auc < 0.6
    assert not found.suspects


def test_an_honest_column_that_helps_a_lot_is_no_leak(card: Bool, draw: np.random.Generator) -> None:
    helps = np.where(card[:, 0], 1.5, 0.0) + draw.normal(size=ROWS)
    found = leaks(data(card, {"interest": helps}), {"interest": 1.0})
    assert 0.8 < found.columns[0].auc < 0.9
    assert not found.found


def test_the_words_of_one_text_tell_a_product_each(draw: np.random.Generator) -> None:
    lot = draw.integers(6, size=ROWS)
    taken = np.asarray(lot[:, None] == np.arange(3))
    columns = {f"next = {name}": lot == place for place, name in enumerate(PRODUCTS)}
    found = leaks(data(taken, columns), dict.fromkeys(columns, 0.3))
    assert {one.tells for one in found.suspects} == {("card",), ("loan",), ("fund",)}
    assert found.told == pytest.approx(1.0)
    assert found.carried == pytest.approx(0.9)
    assert found.found


def test_a_column_that_tells_that_something_is_taken_is_found_though_it_does_not_tell_what(
    draw: np.random.Generator,
) -> None:
    lot = draw.integers(6, size=ROWS)
    taken = np.asarray(lot[:, None] == np.arange(3))
    found = leaks(data(taken, {"soon": lot < 3}), {"soon": 0.9})
    assert found.columns[0].tells == (ANY,)
    assert found.told == 1.0


def test_a_column_of_the_candidates_is_looked_at_candidate_by_candidate(draw: np.random.Generator) -> None:
    """How usual a product is tells nothing of who takes it, whether it was taken tells all."""
    taken = draw.random((ROWS, 3)) < np.array([0.3, 0.1, 0.05])
    usual = np.broadcast_to([0.3, 0.1, 0.05], (ROWS, 3))
    found = leaks(data(taken, {}, {"share": usual, "applied": taken}), {"applied": 0.9})
    assert [one.column for one in found.suspects] == ["applied"]
    assert next(one.auc for one in found.columns if one.column == "share") == pytest.approx(0.5)


def test_what_tells_occasions_from_other_rows_is_no_leak(draw: np.random.Generator) -> None:
    """In an occasion something was taken by definition; that it was by day, and nobody's snapshot is, tells nothing."""
    occasions = np.arange(ROWS) < ROWS // 2
    lot = draw.integers(3, size=ROWS)
    taken = (lot[:, None] == np.arange(3)) & (occasions | (draw.random(ROWS) < 0.1))[:, None]
    hour = np.where(occasions, 12.0 + draw.normal(size=ROWS), 0.0)
    found = leaks(data(taken, {"hour": hour}, occasions=occasions), {"hour": 0.5})
    assert found.columns[0].auc < 0.6


def test_a_handful_of_takers_tells_nothing(draw: np.random.Generator) -> None:
    taken = (np.arange(ROWS) < 19)[:, None]
    found = leaks(data(taken, {"result": taken[:, 0]}), {"result": 1.0})
    assert (found.columns[0].auc, found.suspects) == (0.5, ())


def test_values_lie_in_bins_of_their_own_or_of_equal_mass_and_missing_ones_apart() -> None:
    assert binned(np.array([3.0, 1.0, np.nan, 1.0])).tolist() == [2, 1, 0, 1]
    many = binned(np.arange(1000, dtype=np.float64))
    assert set(np.bincount(many)[1:].tolist()) <= {49, 50, 51}
    assert many.max() == 20


def test_the_auc_of_counts_is_that_of_rows(draw: np.random.Generator) -> None:
    bins, happened = draw.integers(4, size=500), draw.random(500) < 0.3
    counts = np.stack([np.bincount(bins[happened == kind], minlength=4) for kind in (False, True)])[:, None, :]
    share = (counts[1, 0] + counts[1].sum() / counts.sum()) / (counts.sum(axis=0)[0] + 1)
    assert _auc(counts, counts)[0] == pytest.approx(auc(share[bins], happened))


def test_what_was_found_is_kept_and_read_again(tmp_path: Path) -> None:
    found = Leaks((Separation("age", "card", 0.98, None, 40, ("card",)),), {"card": 40})
    path = tmp_path / "leak.json"
    path.write_text(found.to_json(), encoding="utf-8")
    assert Leaks.load(path) == found
    path.write_text(json.dumps({"columns": [{"column": "age"}]}), encoding="utf-8")
    with pytest.raises(ArtefactError, match="train again"):
        Leaks.load(path)
