"""Batch scoring: what an entities file may hold, and what every line of the answer says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalog import Catalog, Channel, Product
from features.errors import InputError
from features.schema import Bool, Float32, Float64, Rows, RowSchema
from serving.batch import read_entities, score_blocks, write_scores
from serving.question import Question

NOON = datetime(2024, 5, 31, 12, tzinfo=UTC)
CATALOG = Catalog(
    "EUR",
    "UTC",
    (Product("card", "Card", holdable=True), Product("loan", "Loan"), Product("fund", "Fund")),
    (Channel("app", "App"), Channel("sms", "SMS")),
)
SCHEMA = RowSchema(
    products=CATALOG.product_ids,
    holdable=(True, False, False),
    channels=CATALOG.channel_ids,
    attributes=(),
    vocabularies=(),
    time_zone="UTC",
    customer_names=("n",),
    product_names=("n",),
    channel_names=("n",),
)


@dataclass(frozen=True)
class FakeBuild:
    catalog: Catalog = CATALOG


@dataclass(frozen=True)
class FakeModel:
    """Always the same chances: 0.1, 0.3, 0.2 for the products; 0.5, 0.5 for the channels."""

    question: Question
    row_schema: RowSchema = SCHEMA

    def probabilities(self, rows: Rows, available: Bool) -> Float64:
        chances = np.array([0.1, 0.3, 0.2]) if self.question.block == "product" else np.array([0.5, 0.5])
        return np.where(available, chances[None, :], np.nan)


CHANNELS = FakeModel(Question("channel-choice", CATALOG.channel_ids, "channel", "joint", False, 7.0))


def fake_rows(build: Any, model: Any, entities: pd.DataFrame) -> list[Rows]:
    """Customers whose name begins with "h" hold everything."""
    n = len(entities)
    held = np.repeat(entities["customer_id"].str.startswith("h").to_numpy()[:, None], 3, axis=1)
    zeros: Float32 = np.zeros((n, 1), np.float32)
    products, channels = np.zeros((n, 3, 1), np.float32), np.zeros((n, 2, 1), np.float32)
    return [Rows(zeros, products, channels, held, np.zeros((n, 2), bool), SCHEMA)]


PRODUCTS = FakeModel(Question("next-best-product", CATALOG.product_ids, "product", "joint", True, 90.0))


def scored(entities: pd.DataFrame, model: Any = PRODUCTS, block: int = 50_000) -> pd.DataFrame:
    build: Any = FakeBuild()
    blocks = score_blocks(build, model, entities, block=block, source=fake_rows)
    return pd.concat(list(blocks), ignore_index=True)


def entities(*customers: str, eligible: list[frozenset[str] | None] | None = None) -> pd.DataFrame:
    times = pd.Series([NOON] * len(customers)).astype("datetime64[us, UTC]")
    frame = pd.DataFrame({"customer_id": list(customers), "as_of": times})
    return frame if eligible is None else frame.assign(eligible=pd.Series(eligible, dtype=object))


def test_every_entity_has_its_ranked_rows_twice_where_it_was_asked_twice() -> None:
    found = scored(entities("anna", "ben", "anna"))
    assert list(found.columns) == ["customer_id", "as_of", "product_id", "score", "rank"]
    assert found["customer_id"].tolist() == ["anna"] * 3 + ["ben"] * 3 + ["anna"] * 3
    assert found["product_id"].tolist() == ["loan", "fund", "card"] * 3
    assert found["rank"].tolist() == [1, 2, 3] * 3
    assert found["score"].tolist() == [0.3, 0.2, 0.1] * 3


def test_what_a_customer_holds_is_absent_only_where_it_is_holdable() -> None:
    assert scored(entities("holder"))["product_id"].tolist() == ["loan", "fund"]


def test_only_eligible_products_are_ranked_and_ranks_have_no_gaps() -> None:
    found = scored(entities("anna", "ben", "holder", eligible=[frozenset({"card", "fund"}), None, frozenset({"card"})]))
    assert found[["customer_id", "product_id", "rank"]].to_numpy().tolist() == [
        ["anna", "fund", 1],
        ["anna", "card", 2],
        ["ben", "loan", 1],
        ["ben", "fund", 2],
        ["ben", "card", 3],
    ]


def test_an_eligible_product_that_the_catalogue_lacks_is_an_error_that_names_it() -> None:
    with pytest.raises(InputError, match=r"the first, row 1, has yacht"):
        scored(entities("anna", "ben", eligible=[None, frozenset({"yacht", "loan"})]))


def test_every_channel_is_scored_also_for_strangers() -> None:
    found = scored(entities("stranger"), CHANNELS)
    assert found[["channel", "score", "rank"]].to_numpy().tolist() == [["app", 0.5, 1], ["sms", 0.5, 2]]


def test_blocks_change_nothing() -> None:
    asked = entities(*(f"c{number}" for number in range(7)))
    pd.testing.assert_frame_equal(scored(asked, block=3), scored(asked))


def test_scores_are_typed_and_written_whole(tmp_path: Path) -> None:
    out = tmp_path / "new" / "scores.parquet"
    lines = write_scores(iter([scored(entities("anna")), scored(entities("holder"))]), out)
    table = pq.read_table(out)
    assert (lines, table.num_rows) == (5, 5)
    assert [str(kind) for kind in table.schema.types] == [
        "string",
        "timestamp[us, tz=UTC]",
        "string",
        "double",
        "int32",
    ]


def test_no_entities_give_an_empty_file_with_all_columns(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    assert write_scores(iter([scored(entities("anna").iloc[:0])]), out) == 0
    assert pq.read_table(out).column_names == ["customer_id", "as_of", "product_id", "score", "rank"]


def test_a_failure_half_way_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    write_scores(iter([scored(entities("anna"))]), out)
    before = out.read_bytes()

    def broken() -> Iterator[pd.DataFrame]:
        yield scored(entities("ben"))
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        write_scores(broken(), out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_parquet_file_keeps_duplicates_order_and_lists(tmp_path: Path) -> None:
    rows = {"customer_id": ["b", "a", "b"], "as_of": [NOON] * 3, "eligible": [["card"], None, []]}
    schema = pa.schema(
        {"customer_id": pa.string(), "as_of": pa.timestamp("ns", "Europe/Berlin"), "eligible": pa.list_(pa.string())}
    )
    pq.write_table(pa.table(rows, schema=schema), tmp_path / "e.parquet")
    found = read_entities(tmp_path / "e.parquet")
    assert found["customer_id"].tolist() == ["b", "a", "b"]
    assert str(found["as_of"].dtype) == "datetime64[us, UTC]"
    assert found["as_of"].tolist() == [pd.Timestamp(NOON)] * 3
    assert found["eligible"].tolist() == [frozenset({"card"}), None, frozenset()]


def test_a_csv_file_keeps_leading_zeros_zones_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("customer_id,as_of,eligible\n007,2024-05-31T14:00:00+02:00,card;loan\n8,2024-05-31 12:00:00Z,\n")
    found = read_entities(path)
    assert found["customer_id"].tolist() == ["007", "8"]
    assert found["as_of"].tolist() == [pd.Timestamp(NOON)] * 2
    assert found["eligible"].tolist() == [frozenset({"card", "loan"}), None]


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no as_of": ({"customer_id": ["a"]}, "as_of is missing"),
    "a column too many": ({"customer_id": ["a"], "as_of": [NOON], "age": [3]}, "age is not one of them"),
    "ids that are numbers": ({"customer_id": [1], "as_of": [NOON]}, "customer_id is int64"),
    "an empty id": ({"customer_id": ["a", None], "as_of": [NOON, NOON]}, "customer_id is empty in 1 rows"),
    "an empty time": ({"customer_id": ["a", "b"], "as_of": [NOON, None]}, "as_of is empty in 1 rows"),
    "times without zone": ({"customer_id": ["a"], "as_of": [datetime(2024, 1, 1)]}, r"as_of is timestamp\[us\]"),
    "text without zone": ({"customer_id": ["a"], "as_of": ["2024-01-01T00:00:00"]}, "no time with zone in 1 rows"),
    "no time at all": ({"customer_id": ["a"], "as_of": ["soon+00:00"]}, "no time with zone"),
    "eligible numbers": ({"customer_id": ["a"], "as_of": [NOON], "eligible": [3]}, "eligible is int64"),
    "an empty product": ({"customer_id": ["a"], "as_of": [NOON], "eligible": [["card", None]]}, "holds an empty id"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_entities_file_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    columns, reason = BROKEN[case]
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    with pytest.raises(InputError, match=reason):
        read_entities(tmp_path / "e.parquet")


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="cannot be read"):
        read_entities(tmp_path / "e.parquet")
    with pytest.raises(InputError, match="there is no file"):
        read_entities(tmp_path / "absent.parquet")


def test_a_score_file_says_whether_its_scores_are_probabilities(tmp_path: Path) -> None:
    for scale in ("probability", "uncalibrated"):
        write_scores(iter([scored(entities("anna"))]), tmp_path / scale, scale)
        assert pq.read_schema(tmp_path / scale).metadata[b"nextbest.scores"] == scale.encode()
