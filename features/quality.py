"""Checking a bank data directory: every problem of every table at once, and the tables ready for import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from features import relations
from features.arrow import Column, column_of, kernels, take
from features.catalog import Catalog
from features.catalog_file import CATALOG_FILE, CatalogReading, check_policy_attributes, read_catalog
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Table
from features.normalise import Converted, classify, convert
from features.problems import Problem, Rule, Severity, format_problems
from features.schema import Attribute, AttributeKind, Bool
from features.table_files import RawTable, Unreadable, find_files, read_table
from features.tables import FIELDS, SORT_KEYS, Known, arrow_schema, table_schema, validate

__all__ = ["Checked", "Problem", "Rule", "Severity", "check", "format_problems"]


@dataclass(frozen=True)
class Checked:
    """The result of a check.

    catalog: None when its file has errors. tables: those that the folder has and that have no errors, with the
    schema `arrow_schema` gives, sorted by time, events that arrived twice left out. attributes: of the customers,
    by name.
    """

    catalog: Catalog | None
    tables: Mapping[Table, pa.Table]
    problems: tuple[Problem, ...]
    attributes: tuple[Attribute, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "error")

    @property
    def notes(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.severity == "note")


@dataclass
class _Draft:
    """A table under examination: its readable columns by name, and what was found."""

    columns: dict[str, Column] = field(default_factory=dict)
    attributes: dict[str, AttributeKind] = field(default_factory=dict)
    excused: dict[str, Bool] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    left_out: Bool | None = None
    """Rows [n] that repeat another one."""

    def take(self, name: str, converted: Converted) -> None:
        self.problems += converted.problems
        if converted.values is None:
            self.unreadable.add(name)
            return
        self.columns[name] = converted.values
        if converted.excused is not None:
            self.excused[name] = converted.excused


def check(directory: Path) -> Checked:
    """Check the bank data directory against the format. Writes nothing; problems are returned, never raised."""
    if not directory.is_dir():
        return Checked(None, {}, (Problem(str(directory), None, Rule.FOLDER, 0),))
    reading = read_catalog(directory / CATALOG_FILE)
    files, problems = find_files(directory)
    found = [*reading.problems, *problems]
    tables: dict[Table, pa.Table] = {}
    attributes: tuple[Attribute, ...] = ()
    since: pa.Table | None = None
    for table, path in files.items():  # customers come first
        try:
            draft = _examine(table, read_table(table, path), reading)
        except Unreadable as unreadable:
            found.append(unreadable.problem)
            continue
        if table is Table.CUSTOMERS:
            attributes = tuple(Attribute(name, kind) for name, kind in sorted(draft.attributes.items()))
            if {CUSTOMER_ID, EVENT_TIMESTAMP} <= draft.columns.keys():
                since = relations.known_since(draft.columns)
            if reading.catalog is not None:
                found += check_policy_attributes(reading.catalog, attributes)
        elif since is not None and CUSTOMER_ID in draft.columns:
            draft.problems += relations.customer_rules(table, draft.columns, since)
        found += draft.problems
        if not any(problem.severity == "error" for problem in draft.problems):
            tables[table] = _finish(table, draft, attributes)
    return Checked(reading.catalog, tables, tuple(found), attributes)


def _examine(table: Table, raw: RawTable, reading: CatalogReading) -> _Draft:
    """Everything that can be said of a table by itself and by the catalogue."""
    draft = _typed(table, raw)
    known = Known(reading.product_ids, reading.channel_ids, reading.content_ids)
    schema = table_schema(table, known, draft.attributes, draft.excused)
    schema = schema.remove_columns(sorted(draft.unreadable & schema.columns.keys()))
    draft.problems += validate(table, draft.columns, schema)
    _relate(table, draft)
    if table is Table.CUSTOMERS and raw.rows == 0:
        draft.problems.append(Problem(table, None, Rule.ROWS, 0))
    return draft


def _typed(table: Table, raw: RawTable) -> _Draft:
    """The columns in the types of the import. Unknown columns stay as they are: the schema refuses them."""
    draft = _Draft()
    fields = {item.name: item for item in FIELDS[table]}
    for name, values in raw.columns.items():
        if name in fields:
            draft.take(name, convert(table, name, values, fields[name].kind, raw.is_csv))
        elif table is not Table.CUSTOMERS:
            draft.columns[name] = pa.chunked_array([pa.nulls(raw.rows)])
        elif name == "":
            draft.problems.append(Problem(table, None, Rule.NAMED_COLUMN, 0))
        else:
            kind, converted = classify(table, name, values, raw.is_csv)
            draft.take(name, converted)
            if converted.values is not None:
                draft.attributes[name] = kind
    return draft


def _relate(table: Table, draft: _Draft) -> None:
    """The rules between the rows of one table, where their columns can be read."""
    there = draft.columns.keys()
    if table is Table.CUSTOMERS and {CUSTOMER_ID, EVENT_TIMESTAMP} <= there:
        draft.problems += relations.repeated_states(draft.columns)
    if table is Table.HOLDINGS and {item.name for item in FIELDS[table]} <= there:
        draft.problems += relations.same_moment(draft.columns)
    if table is Table.TIMELINE and Event.EVENT_ID in there:
        known = {name: draft.columns[name] for name in there & {item.name for item in FIELDS[table]}}
        problems, draft.left_out = relations.repeated_events(known)
        draft.problems += problems


def _finish(table: Table, draft: _Draft, attributes: tuple[Attribute, ...]) -> pa.Table:
    """The table with all its columns in the format's order, sorted, repeated rows left out."""
    schema = arrow_schema(table, attributes if table is Table.CUSTOMERS else ())
    rows = len(draft.columns[CUSTOMER_ID])
    columns = [draft.columns.get(item.name, pa.chunked_array([pa.nulls(rows, item.type)])) for item in schema]
    complete = pa.Table.from_arrays(columns, schema=schema)
    if draft.left_out is not None and draft.left_out.any():
        complete = complete.filter(column_of(~draft.left_out))
    order = kernels.sort_indices(complete, sort_keys=SORT_KEYS[table]).to_numpy().astype(np.int64)
    return complete if np.array_equal(order, np.arange(len(order))) else take(complete, order)
