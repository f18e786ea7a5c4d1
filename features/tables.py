"""The tables of the input format (DATA.md) and, as pandera schemas, the rules for their values.

Pandera runs on pandas frames that wrap the Arrow columns as they are (`pandas.ArrowDtype`), and every rule is an
Arrow kernel over a whole column, so that a table of millions of rows never becomes Python objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa

from features.arrow import Column, column_of, kernels, table_of
from features.columns import (
    CUSTOMER_ID,
    EVENT_TIMESTAMP,
    WORDS_FOR_NULL,
    Event,
    Holding,
    Kind,
    Purpose,
    Table,
    Transaction,
)
from features.problems import Problem, Rule, rows_of
from features.schema import Attribute, AttributeKind, Bool

FieldKind = Literal["id", "text", "number", "time"]
Mask: TypeAlias = Callable[[Column], Column]
"""Which values of a column [n] keep a rule: bool [n], null where the value is null."""

TIME = pa.timestamp("us", tz="UTC")

ARROW_TYPES: Mapping[FieldKind, pa.DataType] = {
    "id": pa.string(),
    "text": pa.string(),
    "number": pa.float64(),
    "time": TIME,
}

ATTRIBUTE_TYPES: Mapping[AttributeKind, pa.DataType] = {
    "number": pa.float64(),
    "flag": pa.bool_(),
    "date": TIME,
    "text": pa.string(),
}
"""How attributes are kept after the import; a date is its midnight in UTC."""


@dataclass(frozen=True)
class Field:
    """A column of the format. required: the column must be there. filled: it must have no nulls."""

    name: str
    kind: FieldKind
    required: bool = True
    filled: bool = True


def _optional(name: str, kind: FieldKind) -> Field:
    return Field(name, kind, required=False, filled=False)


_WHO_AND_WHEN = (Field(CUSTOMER_ID, "id"), Field(EVENT_TIMESTAMP, "time"))

FIELDS: Mapping[Table, tuple[Field, ...]] = {
    Table.CUSTOMERS: _WHO_AND_WHEN,
    Table.HOLDINGS: (*_WHO_AND_WHEN, Field(Holding.PRODUCT_ID, "id"), Field(Holding.ACTION, "text")),
    Table.TRANSACTIONS: (
        *_WHO_AND_WHEN,
        Field(Transaction.AMOUNT, "number"),
        Field(Transaction.CATEGORY, "text", filled=False),
        _optional(Transaction.BALANCE, "number"),
    ),
    Table.TIMELINE: (
        Field(Event.EVENT_ID, "id"),
        *_WHO_AND_WHEN,
        Field(Event.KIND, "text"),
        _optional(Event.CHANNEL, "id"),
        _optional(Event.PURPOSE, "text"),
        _optional(Event.PRODUCT_ID, "id"),
        _optional(Event.CONTENT_ID, "id"),
        _optional(Event.DECISION_ID, "id"),
        _optional(Event.MESSAGE_ID, "id"),
        _optional(Event.PROPENSITY, "number"),
        _optional(Event.VALUE, "number"),
    ),
}
"""The columns of each table, in the order that the imported tables have."""

SORT_KEYS: Mapping[Table, tuple[tuple[str, Literal["ascending", "descending"]], ...]] = {
    Table.CUSTOMERS: ((EVENT_TIMESTAMP, "ascending"), (CUSTOMER_ID, "ascending")),
    # "closed" sorts before "opened": both at one moment is a renewal.
    Table.HOLDINGS: (
        (EVENT_TIMESTAMP, "ascending"),
        (CUSTOMER_ID, "ascending"),
        (Holding.PRODUCT_ID, "ascending"),
        (Holding.ACTION, "ascending"),
    ),
    # Banks book a day's credits before its debits. Where times are days (berka), balances follow from one
    # transaction to the next in 89 of 100 cases in this order, in 71 in the file's own, in 53 debits first.
    Table.TRANSACTIONS: (
        (EVENT_TIMESTAMP, "ascending"),
        (CUSTOMER_ID, "ascending"),
        (Transaction.AMOUNT, "descending"),
        (Transaction.BALANCE, "descending"),
        (Transaction.CATEGORY, "ascending"),
    ),
    Table.TIMELINE: ((EVENT_TIMESTAMP, "ascending"), (Event.EVENT_ID, "ascending")),
}
"""Total orders, up to rows that are equal in every column: the order of rows in a file carries no meaning."""


def arrow_schema(table: Table, attributes: tuple[Attribute, ...] = ()) -> pa.Schema:
    """The schema of an imported table; `attributes` are the further columns of customers."""
    columns = [pa.field(item.name, ARROW_TYPES[item.kind]) for item in FIELDS[table]]
    return pa.schema(columns + [pa.field(item.name, ATTRIBUTE_TYPES[item.kind]) for item in attributes])


@dataclass(frozen=True)
class Known:
    """The ids of the catalogue; None where they could not be read, and nothing can be said of a table's ids."""

    products: frozenset[str] | None
    channels: frozenset[str] | None
    contents: frozenset[str] | None


def _is_one_of(values: Iterable[str]) -> Mask:
    allowed = pa.array(sorted(str(value) for value in values), pa.string())
    return lambda column: kernels.if_else(column.is_valid(), kernels.is_in(column, value_set=allowed), None)


def _in_unit_interval(column: Column) -> Column:
    return kernels.and_(kernels.greater(column, 0.0), kernels.less_equal(column, 1.0))


def _is_no_word(column: Column) -> Column:
    return kernels.invert(kernels.is_in(column, value_set=pa.array(WORDS_FOR_NULL)))


_RULES: Mapping[tuple[Table, str], tuple[Rule, Mask]] = {
    (Table.HOLDINGS, Holding.ACTION): (Rule.ACTION, _is_one_of([Holding.OPENED, Holding.CLOSED])),
    (Table.TRANSACTIONS, Transaction.AMOUNT): (Rule.FINITE, kernels.is_finite),
    (Table.TRANSACTIONS, Transaction.BALANCE): (Rule.FINITE, kernels.is_finite),
    (Table.TIMELINE, Event.KIND): (Rule.KIND, _is_one_of(list(Kind))),
    (Table.TIMELINE, Event.PURPOSE): (Rule.PURPOSE, _is_one_of(list(Purpose))),
    (Table.TIMELINE, Event.PROPENSITY): (Rule.PROPENSITY, _in_unit_interval),
    (Table.TIMELINE, Event.VALUE): (Rule.FINITE, kernels.is_finite),
}

_FREE_IDS = frozenset({CUSTOMER_ID, Event.EVENT_ID, Event.DECISION_ID, Event.MESSAGE_ID})


def _value_rules(table: Table, item: Field, known: Known) -> Iterator[tuple[Rule, Mask]]:
    if (table, item.name) in _RULES:
        yield _RULES[table, item.name]
    if item.name in _FREE_IDS:
        yield Rule.NOT_A_WORD, _is_no_word
    for name, ids, rule in (
        (Event.PRODUCT_ID, known.products, Rule.PRODUCT),
        (Event.CHANNEL, known.channels, Rule.CHANNEL),
        (Event.CONTENT_ID, known.contents, Rule.CONTENT),
    ):
        if item.name == name and ids is not None:
            yield rule, _is_one_of(ids)


def _check(rule: Rule, mask: Mask) -> pandera.Check:
    def keeps(series: pd.Series[Any]) -> pd.Series[bool]:
        kept = kernels.fill_null(mask(_arrow(series)), True)
        return pd.Series(kept.to_numpy(), index=series.index)

    # ignore_na=False: nulls are told apart from NaN by the mask; pandas would drop both.
    return pandera.Check(keeps, name=rule, ignore_na=False, n_failure_cases=1)


def _arrow(series: pd.Series[Any]) -> Column:
    values = pa.array(series)
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def table_schema(
    table: Table, known: Known, attributes: Mapping[str, AttributeKind], excused: Mapping[str, Bool]
) -> pandera.DataFrameSchema:
    """The pandera schema of a table whose columns have their types already.

    excused: per column, the rows [n] whose value could not be read; they are null now, and reported elsewhere.
    """
    columns = {}
    for item in FIELDS[table]:
        checks = [_check(rule, mask) for rule, mask in _value_rules(table, item, known)]
        if item.filled:
            checks.insert(0, _check(Rule.VALUE, _is_there(excused.get(item.name))))
        columns[item.name] = pandera.Column(
            pd.ArrowDtype(ARROW_TYPES[item.kind]), checks, required=item.required, nullable=True
        )
    for name, kind in attributes.items():
        finite = [_check(Rule.FINITE, kernels.is_finite)] if kind == "number" else []
        columns[name] = pandera.Column(pd.ArrowDtype(ATTRIBUTE_TYPES[kind]), finite, nullable=True)
    return pandera.DataFrameSchema(columns, strict=True)


def _is_there(excused: Bool | None) -> Mask:
    if excused is None:
        return lambda column: column.is_valid()
    return lambda column: kernels.or_(column.is_valid(), column_of(excused))


def validate(table: Table, columns: Mapping[str, Column], schema: pandera.DataFrameSchema) -> list[Problem]:
    """Every value that breaks a rule of `schema`, and every column too few or too many."""
    frame = table_of(columns).to_pandas(types_mapper=pd.ArrowDtype)
    try:
        schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        return [_problem(table, columns, error) for error in errors.schema_errors]
    return []


def _problem(table: Table, columns: Mapping[str, Column], error: pandera.errors.SchemaError) -> Problem:
    name = str(error.column_name or error.failure_cases)
    match error.reason_code:
        case pandera.errors.SchemaErrorReason.COLUMN_NOT_IN_DATAFRAME:
            return Problem(table, name, Rule.COLUMN, 0)
        case pandera.errors.SchemaErrorReason.COLUMN_NOT_IN_SCHEMA:
            return Problem(table, name, Rule.KNOWN_COLUMN, 0)
        case pandera.errors.SchemaErrorReason.DATAFRAME_CHECK:
            bad = ~error.check_output.to_numpy(dtype=bool)
            return Problem(table, name, Rule(error.check.name), *rows_of(bad, [(name, columns[name])]))
    raise error  # a rule that this module does not state: a fault of ours, not of the data
