"""Finding and reading the files of a bank data directory, as they stand: nothing is converted here."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from features.arrow import Column
from features.catalog_file import show_error
from features.columns import Table
from features.problems import SHOWN, Problem, Rule

SUFFIXES = (".parquet", ".csv")

_BLOCK = 1 << 24


@dataclass(frozen=True)
class RawTable:
    """A table as its file has it. In CSV every column is text, and an empty field without quotes is null."""

    columns: dict[str, Column]
    rows: int
    is_csv: bool


class Unreadable(Exception):
    """A file that cannot be read as a table; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.rule)
        self.problem = problem


def find_files(directory: Path) -> tuple[dict[Table, Path], tuple[Problem, ...]]:
    """The file of each table that has one, and the problems of files that are too many or unknown.

    Subfolders are ignored, but one that has a table's file name (a partitioned data set) is a problem.
    """
    files: dict[Table, Path] = {}
    problems: list[Problem] = []
    names = {table: [table.value + suffix for suffix in SUFFIXES] for table in Table}
    for table, candidates in names.items():
        found = [directory / name for name in candidates if (directory / name).exists()]
        if len(found) == 1 and found[0].is_file():
            files[table] = found[0]
        elif found:
            kinds = tuple(path.name + ("/ (a folder)" if path.is_dir() else "") for path in found)
            problems.append(Problem(table, None, Rule.FILE, 0, kinds))
        elif table is Table.CUSTOMERS:
            problems.append(Problem(table, None, Rule.PRESENT, 0, ("customers.parquet is missing",)))
    for path in sorted(directory.iterdir()):
        ours = path.stem in list(Table) or path.name.startswith("entities")
        if path.is_file() and path.suffix in SUFFIXES and not ours:
            problems.append(Problem(path.name, None, Rule.EXTRA_FILE, 0, severity="note"))
    return files, tuple(problems)


def read_table(table: Table, path: Path) -> RawTable:
    """Read a table's file whole. Raises Unreadable with the problem."""
    try:
        return _read_csv(table, path) if path.suffix == ".csv" else _read_parquet(table, path)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise Unreadable(Problem(table, None, Rule.READABLE, 0, (f"{path.name}: {show_error(error)}",))) from error


def _read_parquet(table: Table, path: Path) -> RawTable:
    # Not pq.read_table, which takes folders named a=b on the way to the file for columns.
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        content = file.read()
    _check_names(table, content.column_names)
    return RawTable(dict(zip(content.column_names, content.columns, strict=True)), content.num_rows, False)


def _read_csv(table: Table, path: Path) -> RawTable:
    names = _header(path)
    if _open_quote(path):
        # Arrow would take everything behind the quote for one value, and lose the rows in silence.
        raise Unreadable(Problem(table, None, Rule.READABLE, 0, (f"{path.name}: a quote is not closed",)))
    _check_names(table, names)
    ragged: list[str] = []

    def note(row: Any) -> Literal["skip"]:
        ragged.append(f"line {row.number}: {row.actual_columns} fields, the header has {row.expected_columns}")
        return "skip"

    content = arrow_csv.read_csv(
        path,
        # One thread: only then are the numbers of ragged lines known.
        read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        convert_options=arrow_csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    if ragged:
        raise Unreadable(Problem(table, None, Rule.READABLE, len(ragged), tuple(ragged[:SHOWN])))
    return RawTable(dict(zip(names, content.columns, strict=True)), content.num_rows, True)


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        return next(csv.reader(lines), [])


def _open_quote(path: Path) -> bool:
    with path.open("rb") as file:
        return sum(block.count(b'"') for block in iter(lambda: file.read(_BLOCK), b"")) % 2 == 1


def _check_names(table: Table, names: list[str]) -> None:
    repeated = tuple(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise Unreadable(Problem(table, None, Rule.ONE_COLUMN, 0, repeated[:SHOWN]))
