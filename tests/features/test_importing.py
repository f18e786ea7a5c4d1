from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.columns import Table
from features.errors import BankDataError, InputError
from features.importing import Bank, fingerprint, load_bank, make_bank, read_bank, write_bank
from features.tables import TIME, arrow_schema


def tables_in(folder: Path) -> dict[str, pa.Table]:
    return {str(table): pq.read_table(folder / f"{table}.parquet") for table in Table}


def replaced(table: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


@contextmanager
def folder_of(tables: dict[str, pa.Table], catalog: str, **how: object) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "catalog.toml").write_text(catalog, encoding="utf-8")
        for table, content in tables.items():
            pq.write_table(content, folder / f"{table}.parquet", **how)
        yield folder


def assert_same(one: Bank, other: Bank) -> None:
    assert one.catalog == other.catalog
    assert one.attributes == other.attributes
    for table in Table:
        assert one.tables[table].equals(other.tables[table], check_metadata=True)
    assert one.fingerprint == other.fingerprint


def test_every_table_is_there_with_its_columns_even_when_the_folder_has_only_customers(small_bank_folder: Path) -> None:
    for table in ("holdings", "transactions", "timeline"):
        (small_bank_folder / f"{table}.parquet").unlink()
    bank = read_bank(small_bank_folder)
    for table in (Table.HOLDINGS, Table.TRANSACTIONS, Table.TIMELINE):
        assert bank.tables[table].num_rows == 0
        assert bank.tables[table].schema == arrow_schema(table)
    assert bank.tables[Table.CUSTOMERS].schema == arrow_schema(Table.CUSTOMERS, bank.attributes)
    assert [(item.name, item.kind) for item in bank.attributes] == [
        ("age", "number"),
        ("birth_date", "date"),
        ("city", "text"),
        ("student", "flag"),
    ]


def test_optional_columns_that_a_file_lacks_come_as_nulls(small_bank_folder: Path) -> None:
    path = small_bank_folder / "timeline.parquet"
    bare = pq.read_table(path).select(["kind", "event_id", "customer_id", "event_timestamp"])
    pq.write_table(bare, path)
    timeline = read_bank(small_bank_folder).tables[Table.TIMELINE]
    assert timeline.schema == arrow_schema(Table.TIMELINE)
    assert timeline["propensity"].null_count == timeline["channel"].null_count == len(timeline) == 13


def test_tables_come_sorted_by_time_and_then_by_id(small_bank_folder: Path) -> None:
    path = small_bank_folder / "timeline.parquet"
    timeline = pq.read_table(path)
    same_moment = replaced(timeline, "event_timestamp", pa.array([timeline["event_timestamp"][0].as_py()] * 13, TIME))
    pq.write_table(same_moment.take(list(reversed(range(13)))), path)
    assert read_bank(small_bank_folder).tables[Table.TIMELINE]["event_id"].to_pylist() == [
        f"e{n:02d}" for n in range(13)
    ]


def test_credits_of_one_moment_come_before_debits(small_bank_folder: Path) -> None:
    path = small_bank_folder / "transactions.parquet"
    table = pq.read_table(path)
    moment = pa.array([table["event_timestamp"][0].as_py()] * 4, TIME)
    table = replaced(replaced(table, "event_timestamp", moment), "customer_id", pa.array(["c1"] * 4))
    pq.write_table(replaced(table, "amount", pa.array([-50.0, 20.0, -5.0, 100.0])), path)
    assert read_bank(small_bank_folder).tables[Table.TRANSACTIONS]["amount"].to_pylist() == [100.0, 20.0, -5.0, -50.0]


def test_a_bad_folder_raises_all_its_problems_and_says_what_to_do(small_bank_folder: Path) -> None:
    (small_bank_folder / "timeline.parquet").write_bytes(b"PAR1")
    catalog = small_bank_folder / "catalog.toml"
    catalog.write_text(catalog.read_text(encoding="utf-8").replace('"EUR"', "3").replace("Europe", "Atlantis"))
    before = sorted(path.name for path in small_bank_folder.parent.rglob("*"))
    with pytest.raises(
        BankDataError, match=r"(?s)timeline: the file can be read.*3 errors.*nextbest data check"
    ) as raised:
        read_bank(small_bank_folder)
    assert raised.value.exit_code == 2
    assert [problem.table for problem in raised.value.problems] == ["catalog", "catalog", "timeline"]
    assert sorted(path.name for path in small_bank_folder.parent.rglob("*")) == before


def test_notes_do_not_stop_an_import(small_bank_folder: Path) -> None:
    (small_bank_folder / "other.csv").write_text("x\n")
    assert read_bank(small_bank_folder).tables[Table.CUSTOMERS].num_rows == 4


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_the_order_of_rows_and_columns_and_repeated_events_change_nothing(seed: int, small_bank_folder: Path) -> None:
    dice = random.Random(seed)
    catalog = (small_bank_folder / "catalog.toml").read_text(encoding="utf-8")
    shuffled = {}
    for name, table in tables_in(small_bank_folder).items():
        rows = list(range(table.num_rows))
        if name == "timeline":
            rows += dice.choices(rows, k=dice.randrange(5))
        dice.shuffle(rows)
        columns = table.column_names
        dice.shuffle(columns)
        shuffled[name] = table.take(rows).select(columns)
    with folder_of(shuffled, catalog) as folder:
        assert_same(read_bank(folder), read_bank(small_bank_folder))


def test_csv_and_parquet_give_the_same_bank(small_bank_folder: Path) -> None:
    expected = read_bank(small_bank_folder)
    for name, table in tables_in(small_bank_folder).items():
        local = pc.strftime(
            table["event_timestamp"].cast(pa.timestamp("us", "Asia/Kolkata")), format="%Y-%m-%d %H:%M:%S%z"
        )
        table = replaced(table, "event_timestamp", local)
        pa.csv.write_csv(table, small_bank_folder / f"{name}.csv")
        (small_bank_folder / f"{name}.parquet").unlink()
    assert_same(read_bank(small_bank_folder), expected)


def test_how_a_file_is_written_does_not_change_the_fingerprint(small_bank_folder: Path) -> None:
    expected = read_bank(small_bank_folder)
    catalog = (small_bank_folder / "catalog.toml").read_text(encoding="utf-8")
    tables = tables_in(small_bank_folder)
    with folder_of(tables, "# a comment\n" + catalog, compression="gzip", row_group_size=1) as folder:
        assert_same(read_bank(folder), expected)
    for name, table in tables.items():
        for item in table.schema:
            if pa.types.is_timestamp(item.type):
                table = replaced(table, item.name, table[item.name].cast(pa.timestamp("ns", "Asia/Tokyo")))
            elif pa.types.is_string(item.type):
                other = pa.large_string() if name == "timeline" else pa.dictionary(pa.int8(), pa.string())
                table = replaced(table, item.name, table[item.name].cast(other))
            elif pa.types.is_integer(item.type):
                table = replaced(table, item.name, table[item.name].cast(pa.decimal128(21, 2)))
        tables[name] = table
    with folder_of(tables, catalog) as folder:
        assert_same(read_bank(folder), expected)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("category", ["fo", "odfood", "salary", None]),
        ("category", ["food", "food", "salary", ""]),
        ("amount", [-12.5, -12.5, 1000.0, -3.0000000000000004]),
        ("balance", [87.5, 75.0, 0.0, None]),
    ],
)
def test_any_other_value_gives_another_fingerprint(column: str, values: list[object], small_bank_folder: Path) -> None:
    before = read_bank(small_bank_folder).fingerprint
    path = small_bank_folder / "transactions.parquet"
    table = pq.read_table(path)
    pq.write_table(replaced(table, column, pa.array(values, table[column].type)), path)
    assert read_bank(small_bank_folder).fingerprint != before


def test_zero_is_zero_whatever_its_sign(small_bank_folder: Path) -> None:
    before = read_bank(small_bank_folder).fingerprint
    path = small_bank_folder / "transactions.parquet"
    table = pq.read_table(path)
    pq.write_table(replaced(table, "balance", pa.array([87.5, 75.0, None, -0.0])), path)
    assert read_bank(small_bank_folder).fingerprint == before


def test_another_catalogue_gives_another_fingerprint(small_bank_folder: Path) -> None:
    before = read_bank(small_bank_folder).fingerprint
    path = small_bank_folder / "catalog.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("days = 7", "days = 8"), encoding="utf-8")
    assert read_bank(small_bank_folder).fingerprint != before


def test_the_fingerprint_does_not_depend_on_chunks_slices_or_what_lies_under_nulls(small_bank_folder: Path) -> None:
    bank = read_bank(small_bank_folder)
    longer = {name: pa.concat_tables([table.slice(1), table]) for name, table in bank.tables.items()}
    sliced = {name: longer[name].slice(table.num_rows - 1) for name, table in bank.tables.items()}
    assert fingerprint(bank.catalog, sliced) == bank.fingerprint
    balance = bank.tables[Table.TRANSACTIONS]["balance"]
    hidden = pa.array(pc.fill_null(balance, 99.0).to_numpy(), mask=balance.is_null().to_numpy())
    other = replaced(bank.tables[Table.TRANSACTIONS], "balance", hidden)
    assert fingerprint(bank.catalog, {**bank.tables, Table.TRANSACTIONS: other}) == bank.fingerprint


def test_an_imported_copy_loads_as_the_same_bank(small_bank_folder: Path, tmp_path: Path) -> None:
    bank = read_bank(small_bank_folder)
    write_bank(bank, tmp_path / "copy")
    assert_same(load_bank(tmp_path / "copy"), bank)


def test_an_imported_copy_is_itself_a_bank_data_directory(small_bank_folder: Path, tmp_path: Path) -> None:
    bank = read_bank(small_bank_folder)
    write_bank(bank, tmp_path / "copy")
    assert_same(read_bank(tmp_path / "copy"), bank)


def test_an_empty_bank_can_be_made_kept_and_loaded(small_bank_folder: Path, tmp_path: Path) -> None:
    bank = make_bank(read_bank(small_bank_folder).catalog, {}, ())
    write_bank(bank, tmp_path / "copy")
    assert_same(load_bank(tmp_path / "copy"), bank)


@pytest.mark.parametrize("damage", ["no file", "no folder", "another format", "other columns", "cut off"])
def test_a_copy_that_is_not_whole_is_refused(damage: str, small_bank_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    write_bank(read_bank(small_bank_folder), copy)
    match damage:
        case "no file":
            (copy / "holdings.parquet").unlink()
        case "no folder":
            shutil.rmtree(copy)
        case "another format":
            content = json.loads((copy / "bank.json").read_text())
            (copy / "bank.json").write_text(json.dumps({**content, "format": 0}))
        case "other columns":
            shutil.copy(copy / "holdings.parquet", copy / "timeline.parquet")
        case "cut off":
            (copy / "bank.json").write_text("{")
    with pytest.raises(InputError, match="nextbest features build"):
        load_bank(copy)


@pytest.mark.parametrize("name", ["berka", "bank_marketing", "insurance_purchases", "insurance_touches"])
def test_the_real_folders_import_every_row(name: str, real_data: Path) -> None:
    bank = read_bank(real_data / name)
    for table in Table:
        path = real_data / name / f"{table}.parquet"
        rows = pq.read_metadata(path).num_rows if path.exists() else 0
        assert bank.tables[table].num_rows == rows
