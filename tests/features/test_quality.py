from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from features.columns import Table
from features.quality import Problem, Rule, check, format_problems
from features.schema import Attribute

Damage = Callable[[Path], None]
UTC_TIME = pa.timestamp("us", tz="UTC")


def read(folder: Path, table: str) -> pa.Table:
    return pq.read_table(folder / f"{table}.parquet")


def write(folder: Path, table: str, content: pa.Table) -> None:
    pq.write_table(content, folder / f"{table}.parquet")


def put(table: str, column: str, *changes: tuple[int, Any]) -> Damage:
    """Write other values into some rows, counted from 0."""

    def damage(folder: Path) -> None:
        content = read(folder, table)
        values = content[column].to_pylist()
        for row, value in changes:
            values[row] = value
        place = content.column_names.index(column)
        write(folder, table, content.set_column(place, column, pa.array(values, content.schema.field(column).type)))

    return damage


def retype(table: str, column: str, kind: pa.DataType) -> Damage:
    """Give a column another type, its values null where they do not cast."""

    def damage(folder: Path) -> None:
        content = read(folder, table)
        place = content.column_names.index(column)
        try:
            values: Any = content[column].cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values = pa.array(range(content.num_rows)).cast(kind)
        write(folder, table, content.set_column(place, column, values))

    return damage


def drop(table: str, column: str) -> Damage:
    return lambda folder: write(folder, table, read(folder, table).drop_columns([column]))


def add(table: str, column: str, values: pa.Array[Any]) -> Damage:
    return lambda folder: write(folder, table, read(folder, table).append_column(column, values))


def repeat(table: str, row: int) -> Damage:
    """Append a row once more."""

    def damage(folder: Path) -> None:
        content = read(folder, table)
        write(folder, table, pa.concat_tables([content, content.slice(row, 1)]))

    return damage


def both(*damages: Damage) -> Damage:
    def damage(folder: Path) -> None:
        for part in damages:
            part(folder)

    return damage


def truncate(table: str) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / f"{table}.parquet"
        path.write_bytes(path.read_bytes()[:-20])

    return damage


def as_csv(table: str) -> Damage:
    """Write the table as CSV in place of Parquet."""

    def damage(folder: Path) -> None:
        content = read(folder, table)
        for place, item in enumerate(content.schema):
            if pa.types.is_timestamp(item.type):
                content = content.set_column(
                    place,
                    item.name,
                    pc.strftime(content[item.name].cast(pa.timestamp("s", "UTC")), "%Y-%m-%dT%H:%M:%SZ"),
                )
        pa.csv.write_csv(content, folder / f"{table}.csv")
        (folder / f"{table}.parquet").unlink()

    return damage


def edit(name: str, before: str, after: str) -> Damage:
    """Replace text in a file, once."""

    def damage(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert before in text
        (folder / name).write_text(text.replace(before, after, 1), encoding="utf-8")

    return damage


def csv_edit(table: str, before: str, after: str) -> Damage:
    return both(as_csv(table), edit(f"{table}.csv", before, after))


def csv_bytes(table: str, content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / f"{table}.parquet").unlink()
        (folder / f"{table}.csv").write_bytes(content)

    return damage


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def not_utf8(folder: Path) -> None:
    values = pa.array([b"food", b"f\xff\xffd", b"salary", None], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 4, values.buffers())
    content = read(folder, "transactions")
    write(folder, "transactions", content.set_column(3, "category", broken))


NAN, INF = float("nan"), float("inf")

# claim: the damage, and the only errors it may give: table, column, rule, rows
DAMAGES: dict[str, tuple[Damage, set[tuple[str, str | None, str, int]]]] = {
    "ids that are numbers": (
        retype("holdings", "product_id", pa.int64()),
        {("holdings", "product_id", Rule.TEXT, 3)},
    ),
    "amounts that are text": (
        retype("transactions", "amount", pa.string()),
        {("transactions", "amount", Rule.NUMBER, 4)},
    ),
    "amounts that are flags": (
        retype("transactions", "amount", pa.bool_()),
        {("transactions", "amount", Rule.NUMBER, 4)},
    ),
    "times without a zone": (
        retype("timeline", "event_timestamp", pa.timestamp("us")),
        {("timeline", "event_timestamp", Rule.TIME, 13)},
    ),
    "times that are text": (
        retype("holdings", "event_timestamp", pa.string()),
        {("holdings", "event_timestamp", Rule.TIME, 3)},
    ),
    "times that are days": (
        retype("holdings", "event_timestamp", pa.date32()),
        {("holdings", "event_timestamp", Rule.TIME, 3)},
    ),
    "customer times without a zone accuse no other table": (
        retype("customers", "event_timestamp", pa.timestamp("ns")),
        {("customers", "event_timestamp", Rule.TIME, 4)},
    ),
    "a time that is a sentinel": (
        put("timeline", "event_timestamp", (3, dt.datetime(9999, 12, 31, tzinfo=dt.UTC))),
        {("timeline", "event_timestamp", Rule.TIME_RANGE, 1)},
    ),
    "two customers with two rows at one time": (
        both(repeat("customers", 0), repeat("customers", 1), repeat("customers", 0)),
        {("customers", "customer_id", Rule.ONE_STATE, 3)},
    ),
    "an event id with other content": (
        both(repeat("timeline", 2), put("timeline", "product_id", (13, "loan"))),
        {("timeline", "event_id", Rule.ONE_EVENT, 1)},
    ),
    "an event id repeated at another time": (
        put("timeline", "event_id", (5, "e04"), (6, "e04")),
        {("timeline", "event_id", Rule.ONE_EVENT, 2)},
    ),
    "an unknown product": (
        put("holdings", "product_id", (0, "carp"), (2, "lawn")),
        {("holdings", "product_id", Rule.PRODUCT, 2)},
    ),
    "an unknown product on the timeline": (
        put("timeline", "product_id", (0, "carp")),
        {("timeline", "product_id", Rule.PRODUCT, 1)},
    ),
    "an unknown channel": (
        put("timeline", "channel", (1, "fax")),
        {("timeline", "channel", Rule.CHANNEL, 1)},
    ),
    "an unknown content": (
        put("timeline", "content_id", (1, "card_de"), (2, "")),
        {("timeline", "content_id", Rule.CONTENT, 2)},
    ),
    "an unknown customer": (
        put("transactions", "customer_id", (3, "c9")),
        {("transactions", "customer_id", Rule.CUSTOMER, 1)},
    ),
    "an unknown customer of an event": (
        put("timeline", "customer_id", (3, "c9"), (4, "C1")),
        {("timeline", "customer_id", Rule.CUSTOMER, 2)},
    ),
    "a negative propensity": (
        put("timeline", "propensity", (0, -0.25)),
        {("timeline", "propensity", Rule.PROPENSITY, 1)},
    ),
    "propensities of 0, NaN and above 1": (
        put("timeline", "propensity", (0, 0.0), (1, NAN), (2, 1.0000001), (3, 1.0), (4, 1e-300)),
        {("timeline", "propensity", Rule.PROPENSITY, 3)},
    ),
    "infinite amounts": (
        put("transactions", "amount", (0, INF), (1, -INF), (2, NAN)),
        {("transactions", "amount", Rule.FINITE, 3)},
    ),
    "an infinite balance": (
        put("transactions", "balance", (0, INF)),
        {("transactions", "balance", Rule.FINITE, 1)},
    ),
    "a value that is not a number": (
        put("timeline", "value", (5, NAN)),
        {("timeline", "value", Rule.FINITE, 1)},
    ),
    "an attribute that is not finite": (
        both(retype("customers", "age", pa.float64()), put("customers", "age", (1, INF), (3, NAN))),
        {("customers", "age", Rule.FINITE, 2)},
    ),
    "an attribute that is a list": (
        add("customers", "children", pa.array([["a"], [], None, ["b"]])),
        {("customers", "children", Rule.ATTRIBUTE, 4)},
    ),
    "an attribute with times without a zone": (
        add("customers", "login", pa.array([dt.datetime(2024, 1, 1, 12)] * 4, pa.timestamp("ms"))),
        {("customers", "login", Rule.TIME, 4)},
    ),
    "an unknown kind": (
        put("timeline", "kind", (7, "Replied"), (8, "")),
        {("timeline", "kind", Rule.KIND, 2)},
    ),
    "an unknown purpose": (
        put("timeline", "purpose", (0, "spam")),
        {("timeline", "purpose", Rule.PURPOSE, 1)},
    ),
    "an unknown holdings action": (
        put("holdings", "action", (1, "open")),
        {("holdings", "action", Rule.ACTION, 1)},
    ),
    "a customer without an id": (
        put("customers", "customer_id", (2, None)),
        # c3 is not known then, which is true of its transaction too
        {("customers", "customer_id", Rule.VALUE, 1), ("transactions", "customer_id", Rule.CUSTOMER, 1)},
    ),
    "events without an id": (
        put("timeline", "event_id", (2, None), (3, None)),
        {("timeline", "event_id", Rule.VALUE, 2)},
    ),
    "a transaction without an amount": (
        put("transactions", "amount", (2, None)),
        {("transactions", "amount", Rule.VALUE, 1)},
    ),
    "a column of nothing where values are needed": (
        both(drop("timeline", "kind"), add("timeline", "kind", pa.nulls(13))),
        {("timeline", "kind", Rule.VALUE, 13)},
    ),
    "words for null": (
        put("timeline", "message_id", (1, "nan"), (2, "None"), (3, "")),
        {("timeline", "message_id", Rule.NOT_A_WORD, 3)},
    ),
    "a missing column": (
        drop("transactions", "category"),
        {("transactions", "category", Rule.COLUMN, 0)},
    ),
    "a missing customer id": (
        drop("timeline", "customer_id"),
        {("timeline", "customer_id", Rule.COLUMN, 0)},
    ),
    "an unknown column": (
        add("holdings", "branch", pa.array(["a", "b", "c"])),
        {("holdings", "branch", Rule.KNOWN_COLUMN, 0)},
    ),
    "an optional column of a wrong type": (
        retype("timeline", "value", pa.string()),
        {("timeline", "value", Rule.NUMBER, 13)},
    ),
    "text that is not UTF-8": (
        not_utf8,
        {("transactions", "category", Rule.UTF8, 1)},
    ),
    "a truncated Parquet file": (
        truncate("timeline"),
        {("timeline", None, Rule.READABLE, 0)},
    ),
    "a truncated customers file accuses no other table": (
        truncate("customers"),
        {("customers", None, Rule.READABLE, 0)},
    ),
    "no customers": (
        remove("customers.parquet"),
        {("customers", None, Rule.PRESENT, 0)},
    ),
    "a customers table without rows": (
        both(
            lambda folder: write(folder, "customers", read(folder, "customers").slice(0, 0)),
            *(remove(f"{table}.parquet") for table in ("holdings", "transactions", "timeline")),
        ),
        {("customers", None, Rule.ROWS, 0)},
    ),
    "a partitioned table": (
        both(remove("holdings.parquet"), lambda folder: (folder / "holdings.parquet").mkdir()),
        {("holdings", None, Rule.FILE, 0)},
    ),
    "a table twice": (
        lambda folder: (folder / "holdings.csv").write_text("customer_id\n"),
        {("holdings", None, Rule.FILE, 0)},
    ),
    "no catalogue": (
        remove("catalog.toml"),
        {("catalog", None, Rule.PRESENT, 0)},
    ),
    "bad TOML": (
        edit("catalog.toml", "[[products]]", "[[products]"),
        {("catalog", None, Rule.READABLE, 0)},
    ),
    "a product twice in the catalogue": (
        edit("catalog.toml", 'id = "loan"', 'id = "card"'),
        {("catalog", "products.id", Rule.CATALOG_ID, 1), ("holdings", "product_id", Rule.PRODUCT, 1)},
    ),
    "a catalogue id that cannot be read accuses no table": (
        edit("catalog.toml", 'id = "loan"', "id = 5"),
        {("catalog", "products.id", Rule.CATALOG_VALUE, 1)},
    ),
    "ragged CSV": (
        csv_bytes(
            "holdings",
            b"customer_id,event_timestamp,product_id,action\nc1,2024-01-02T00:00:00Z,card\n"
            b"c1,2024-01-02T00:00:00Z,card,opened\nc1,2024-01-02T00:00:00Z,card,closed,x\n",
        ),
        {("holdings", None, Rule.READABLE, 2)},
    ),
    "CSV with an open quote": (
        csv_edit("holdings", '"c2"', '"c2'),
        {("holdings", None, Rule.READABLE, 0)},
    ),
    "CSV in another encoding": (
        csv_bytes(
            "transactions",
            "customer_id,event_timestamp,amount,category\nc1,2024-01-02T00:00:00Z,1,č\n".encode("cp1250"),
        ),
        {("transactions", None, Rule.READABLE, 0)},
    ),
    "an empty CSV file": (
        csv_bytes("holdings", b""),
        {("holdings", None, Rule.READABLE, 0)},
    ),
    "a CSV column twice": (
        csv_bytes("holdings", b"customer_id,event_timestamp,product_id,action,action\n"),
        {("holdings", None, Rule.ONE_COLUMN, 0)},
    ),
    "a CSV time without a zone": (
        csv_edit("holdings", "2024-01-02T00:00:00Z", "2024-01-02T00:00:00"),
        {("holdings", "event_timestamp", Rule.TIME, 1)},
    ),
    "a CSV time on the 30th of February": (
        csv_edit("holdings", "2024-01-02T00:00:00Z", "2024-02-30T00:00:00Z"),
        {("holdings", "event_timestamp", Rule.DATE, 1)},
    ),
    "a CSV time in the American way": (
        csv_edit("holdings", "2024-01-02T00:00:00Z", "01/02/2024 00:00Z"),
        {("holdings", "event_timestamp", Rule.TIME, 1)},
    ),
    "a CSV amount with a comma": (
        csv_edit("transactions", "1000,", '"1000,5",'),
        {("transactions", "amount", Rule.NUMBER, 1)},
    ),
    "an infinite CSV amount": (
        csv_edit("transactions", "1000,", "1e999,"),
        {("transactions", "amount", Rule.FINITE, 1)},
    ),
    "a CSV attribute without a name": (
        csv_edit("customers", '"city"', '""'),
        {("customers", None, Rule.NAMED_COLUMN, 0)},
    ),
}


def errors_of(problems: tuple[Problem, ...]) -> set[tuple[str, str | None, str, int]]:
    return {
        (problem.table, problem.column, problem.rule, problem.rows)
        for problem in problems
        if problem.severity == "error"
    }


@pytest.mark.parametrize(("damage", "expected"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damage_gives_exactly_its_errors(
    damage: Damage, expected: set[tuple[str, str | None, str, int]], small_bank_folder: Path
) -> None:
    damage(small_bank_folder)
    before = contents(small_bank_folder)
    checked = check(small_bank_folder)
    assert errors_of(checked.problems) == expected
    assert len(checked.errors) == len(expected), "a problem is said once"
    accused = {table for table, *_ in expected}
    there = {
        table for table in Table if any((small_bank_folder / f"{table}{end}").is_file() for end in (".csv", ".parquet"))
    }
    assert {str(table) for table in checked.tables} == there - accused, "the other tables are checked to the end"
    assert (checked.catalog is None) == ("catalog" in accused)
    assert contents(small_bank_folder) == before, "a check writes nothing"
    for problem in checked.errors:
        assert len(problem.first) == min(problem.rows, 5) or problem.rows == 0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_good_bank_has_no_problems(small_bank_folder: Path) -> None:
    checked = check(small_bank_folder)
    assert checked.problems == ()
    assert set(checked.tables) == set(Table)


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (problem,) = check(tmp_path / "nowhere").problems
    assert (problem.rule, problem.severity) == (Rule.FOLDER, "error")


def test_all_problems_are_reported_at_once(small_bank_folder: Path) -> None:
    names = [
        "ids that are numbers",
        "infinite amounts",
        "an unknown channel",
        "a negative propensity",
        "an unknown kind",
        "events without an id",
        "an unknown customer",
        "an attribute that is a list",
        "a value that is not a number",
    ]
    expected: set[tuple[str, str | None, str, int]] = set()
    for name in names:
        damage, errors = DAMAGES[name]
        damage(small_bank_folder)
        expected |= errors
    edit("catalog.toml", 'currency = "EUR"', "")(small_bank_folder)
    expected.add(("catalog", "currency", Rule.CATALOG_VALUE, 1))
    assert errors_of(check(small_bank_folder).problems) == expected


def test_a_csv_column_with_unreadable_values_is_still_checked_for_the_others(small_bank_folder: Path) -> None:
    as_csv("transactions")(small_bank_folder)
    edit("transactions.csv", "-12.5", "twelve")(small_bank_folder)
    edit("transactions.csv", "-12.5", "inf")(small_bank_folder)
    edit("transactions.csv", "1000", "")(small_bank_folder)
    assert errors_of(check(small_bank_folder).problems) == {
        ("transactions", "amount", Rule.NUMBER, 1),
        ("transactions", "amount", Rule.FINITE, 1),
        ("transactions", "amount", Rule.VALUE, 1),
    }


def test_the_first_five_rows_are_named_with_their_values(small_bank_folder: Path) -> None:
    put("timeline", "kind", *((row, f"k{row}") for row in range(2, 9)))(small_bank_folder)
    (problem,) = check(small_bank_folder).problems
    assert problem.rows == 7
    assert problem.first == tuple(f"row {row + 1}: 'k{row}'" for row in range(2, 7))


def test_a_repeated_row_names_the_row_it_repeats(small_bank_folder: Path) -> None:
    repeat("customers", 1)(small_bank_folder)
    (problem,) = check(small_bank_folder).problems
    assert problem.first == ("row 5: customer_id=c2, event_timestamp=2024-01-01 00:00:00+00:00, as in row 2",)


def test_events_that_arrive_twice_are_dropped_with_a_note(small_bank_folder: Path) -> None:
    undisturbed = check(small_bank_folder).tables[Table.TIMELINE]
    both(repeat("timeline", 4), repeat("timeline", 0), repeat("timeline", 4))(small_bank_folder)
    checked = check(small_bank_folder)
    (note,) = checked.problems
    assert (note.table, note.column, note.rule, note.rows, note.severity) == (
        "timeline",
        "event_id",
        Rule.REPEATED_EVENT,
        3,
        "note",
    )
    assert checked.tables[Table.TIMELINE].equals(undisturbed)


def test_an_event_that_arrived_twice_and_once_with_other_content_is_both(small_bank_folder: Path) -> None:
    both(repeat("timeline", 4), repeat("timeline", 4), put("timeline", "value", (13, 1.0)))(small_bank_folder)
    found = {(problem.rule, problem.rows, problem.severity) for problem in check(small_bank_folder).problems}
    assert found == {(Rule.ONE_EVENT, 1, "error"), (Rule.REPEATED_EVENT, 1, "note")}


def test_equal_transactions_are_two_transactions(small_bank_folder: Path) -> None:
    repeat("transactions", 0)(small_bank_folder)
    checked = check(small_bank_folder)
    assert checked.problems == ()
    assert checked.tables[Table.TRANSACTIONS].num_rows == 5


def test_events_before_the_customer_is_known_are_a_note(small_bank_folder: Path) -> None:
    early = dt.datetime(2023, 12, 31, 23, 59, tzinfo=dt.UTC)
    put("transactions", "event_timestamp", (2, early))(small_bank_folder)
    checked = check(small_bank_folder)
    (note,) = checked.problems
    assert (note.table, note.rule, note.rows, note.severity) == ("transactions", Rule.EARLY, 1, "note")
    assert note.first == ("row 3: customer_id='c2', event_timestamp=2023-12-31 23:59:00+00:00",)
    assert checked.tables[Table.TRANSACTIONS].num_rows == 4


def test_an_event_at_the_moment_the_customer_is_known_is_no_note(small_bank_folder: Path) -> None:
    put("transactions", "event_timestamp", (2, dt.datetime(2024, 1, 1, tzinfo=dt.UTC)))(small_bank_folder)
    assert check(small_bank_folder).problems == ()


def test_opened_and_closed_at_one_moment_is_a_note_and_reads_as_a_renewal(small_bank_folder: Path) -> None:
    put("holdings", "event_timestamp", (2, dt.datetime(2024, 1, 2, tzinfo=dt.UTC)))(small_bank_folder)
    checked = check(small_bank_folder)
    assert [(note.rule, note.rows, note.severity) for note in checked.problems] == [(Rule.SAME_MOMENT, 1, "note")]
    assert checked.tables[Table.HOLDINGS]["action"].to_pylist()[:2] == ["closed", "opened"]


def test_files_outside_the_format_are_notes_and_entities_and_subfolders_are_not(small_bank_folder: Path) -> None:
    for name in ("transaction.csv", "entities.parquet", "entities_march.csv", "README.md"):
        (small_bank_folder / name).write_text("x\n")
    (small_bank_folder / "truth").mkdir()
    (small_bank_folder / "truth" / "customers.parquet").write_text("x\n")
    (note,) = check(small_bank_folder).problems
    assert (note.table, note.rule, note.severity) == ("transaction.csv", Rule.EXTRA_FILE, "note")


@pytest.mark.parametrize(
    ("values", "kind", "first"),
    [
        (pa.array([1, 2, 3, None], pa.uint8()), "number", 1.0),
        (pa.array([decimal.Decimal("1.5")] * 4), "number", 1.5),
        (pa.array([1.5, 2, 3, None], pa.float32()), "number", 1.5),
        (pa.array([2**60 + 1] * 4), "number", float(2**60)),
        (pa.array([True, None, False, True]), "flag", True),
        (pa.array([dt.date(2020, 1, 2)] * 4), "date", dt.datetime(2020, 1, 2, tzinfo=dt.UTC)),
        (pa.array([dt.datetime(2020, 1, 2)] * 4, pa.timestamp("ns")), "date", dt.datetime(2020, 1, 2, tzinfo=dt.UTC)),
        (
            pa.array([dt.datetime(2020, 1, 2, 3, tzinfo=dt.UTC)] * 4, pa.timestamp("s", "Europe/Prague")),
            "date",
            dt.datetime(2020, 1, 2, 3, tzinfo=dt.UTC),
        ),
        (pa.array(["2020-01-02", None, None, "1900-12-31"]), "date", dt.datetime(2020, 1, 2, tzinfo=dt.UTC)),
        (pa.array(["2020-01-02", "unknown", None, None]), "text", "2020-01-02"),
        (pa.array(["2020-01-02", "2021-02-29", None, None]), "text", "2020-01-02"),
        (pa.array(["20200102"] * 4), "text", "20200102"),
        (pa.array(["1"] * 4), "text", "1"),
        (pa.array([None] * 4, pa.string()), "text", None),
        (pa.nulls(4), "text", None),
        (pa.array(["x", "y", "x", None]).dictionary_encode(), "text", "x"),
        (pa.array(["x"] * 4, pa.large_string()), "text", "x"),
        (pa.array(["x"] * 4, pa.string_view()), "text", "x"),
    ],
)
def test_an_attribute_is_classified_by_what_it_holds(
    values: pa.Array[Any], kind: str, first: object, small_bank_folder: Path
) -> None:
    name = "as_of"  # a name that other parts use must do no harm
    add("customers", name, values)(small_bank_folder)
    checked = check(small_bank_folder)
    assert checked.problems == ()
    assert {item.name: item.kind for item in checked.attributes}[name] == kind
    assert checked.tables[Table.CUSTOMERS][name][0].as_py() == first


@pytest.mark.parametrize(
    ("texts", "kind", "first"),
    [
        (["1", "-2.5", "1e3", ""], "number", 1.0),
        (["007", "1", "2", "3"], "text", "007"),
        (["true", "False", "", "TRUE"], "flag", True),
        (["true", "no", "", ""], "text", "true"),
        (["2020-01-02", "", "", "2020-01-03"], "date", dt.datetime(2020, 1, 2, tzinfo=dt.UTC)),
        (["1", "two", "", ""], "text", "1"),
        (["", "", "", ""], "text", None),
    ],
)
def test_a_csv_attribute_is_what_all_its_values_are(
    texts: list[str], kind: str, first: object, small_bank_folder: Path
) -> None:
    (small_bank_folder / "customers.parquet").unlink()
    rows = [f"c{number + 1},2024-01-01 00:00Z,{text}" for number, text in enumerate(texts)]
    text = "\n".join(["customer_id,event_timestamp,it", *rows])
    (small_bank_folder / "customers.csv").write_text(text, encoding="utf-8")
    checked = check(small_bank_folder)
    assert checked.problems == ()
    assert checked.attributes == (Attribute("it", kind),)  # type: ignore[arg-type]
    assert checked.tables[Table.CUSTOMERS]["it"][0].as_py() == first


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-05T10:00:00Z",
        "2024-01-05 10:00Z",
        "2024-01-05T12:00:00+02:00",
        "2024-01-05T12:00:00.000+0200",
        "2024-01-05T05:30:00.000000000-04:30",
        "2024-01-05T12:00+02",
    ],
)
def test_csv_times_of_any_zone_are_the_same_moment(text: str, small_bank_folder: Path) -> None:
    csv_edit("holdings", "2024-01-02T00:00:00Z", text)(small_bank_folder)
    checked = check(small_bank_folder)
    assert checked.problems == ()
    moments = checked.tables[Table.HOLDINGS]["event_timestamp"].to_pylist()
    assert dt.datetime(2024, 1, 5, 10, tzinfo=dt.UTC) in moments


def test_a_quoted_empty_field_is_text_and_a_bare_one_is_null(small_bank_folder: Path) -> None:
    csv_bytes(
        "transactions",
        b"customer_id,event_timestamp,amount,category\n"
        b'c1,2024-01-05T00:00:00Z,1,""\nc1,2024-01-06T00:00:00Z,1,\n"c1","2024-01-07T00:00:00Z",1,"a, ""b""\nc"\n',
    )(small_bank_folder)
    checked = check(small_bank_folder)
    assert checked.problems == ()
    assert checked.tables[Table.TRANSACTIONS]["category"].to_pylist() == ["", None, 'a, "b"\nc']


def test_problems_read_well_and_speak_json(small_bank_folder: Path) -> None:
    put("holdings", "product_id", (1, "x\n" * 100))(small_bank_folder)
    repeat("timeline", 0)(small_bank_folder)
    problems = check(small_bank_folder).problems
    text = format_problems(problems)
    lines = text.splitlines()
    assert lines[0] == "error  holdings.product_id: the product is in the catalogue (1 row)"
    assert lines[1].startswith("         row 2: 'x\\nx\\n")
    assert lines[-1] == "1 error, 1 note"
    assert max(len(line) for line in lines) < 120
    first = problems[0].as_json()
    assert first["rule"] == "the product is in the catalogue"
    assert type(first["rule"]) is str
    assert first["first"] == list(problems[0].first)
    assert format_problems(()) == "no problems"


@pytest.mark.parametrize("name", ["berka", "bank_marketing", "insurance_purchases", "insurance_touches"])
def test_the_real_folders_have_no_problems(name: str, real_data: Path) -> None:
    assert format_problems(check(real_data / name).problems) == "no problems"
