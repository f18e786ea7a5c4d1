"""Rules between rows and between tables: repeated keys, repeated events, unknown customers, early events."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.arrow import Column, column_of, kernels, mask_of, table_of, take
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Holding, Table
from features.problems import SHOWN, Problem, Rule, rows_of
from features.schema import Bool

Columns = Mapping[str, Column]
RowNumbers = npt.NDArray[np.int64]


def repeated_states(columns: Columns) -> list[Problem]:
    """Customers with several rows for one time; each row after the first is counted."""
    keys = [CUSTOMER_ID, EVENT_TIMESTAMP]
    return _repeated(Table.CUSTOMERS, Rule.ONE_STATE, columns, keys)


def repeated_events(columns: Columns) -> tuple[list[Problem], Bool]:
    """What is wrong with repeated event ids, and which rows [n] merely repeat an event, to be left out.

    The first row of an event_id counts. A later row that equals it in every column arrived twice: a note. One
    that differs is another event under the same name: an error.
    """
    keys = [Event.EVENT_ID]
    rows, first_row = _first_of(columns, keys)
    again = np.zeros(_length(columns), dtype=np.bool_)
    if len(rows) == 0:
        return [], again
    group = _groups(columns, list(columns), rows)
    _, earliest = np.unique(group, return_index=True)
    first_equal = rows[earliest[group]]
    later = rows != first_row
    same = later & (first_equal == first_row)
    again[rows[same]] = True
    problems = []
    if same.any():
        counted = rows_of(again, [(Event.EVENT_ID, columns[Event.EVENT_ID])])
        problems.append(Problem(Table.TIMELINE, Event.EVENT_ID, Rule.REPEATED_EVENT, *counted, severity="note"))
    other = later & ~same
    if other.any():
        shown = _shown_with_first(columns, keys, rows[other], first_row[other])
        problems.append(Problem(Table.TIMELINE, Event.EVENT_ID, Rule.ONE_EVENT, int(other.sum()), shown))
    return problems, again


def same_moment(columns: Columns) -> list[Problem]:
    """A note on products that a customer opened and closed at one moment, whose order the table cannot tell."""
    keys = [CUSTOMER_ID, EVENT_TIMESTAMP, Holding.PRODUCT_ID]
    rows, first_row = _first_of(columns, keys)
    actions = table_of({Holding.ACTION: columns[Holding.ACTION]})
    action, before = (take(actions, wanted)[Holding.ACTION] for wanted in (rows, first_row))
    other = rows[mask_of(kernels.not_equal(action, before))]
    if len(other) == 0:
        return []
    bad = np.zeros(_length(columns), dtype=np.bool_)
    bad[other] = True
    counted = rows_of(bad, [(key, columns[key]) for key in keys])
    return [Problem(Table.HOLDINGS, Holding.ACTION, Rule.SAME_MOMENT, *counted, severity="note")]


def known_since(customers: Columns) -> pa.Table:
    """Each customer once: customer_id, and `known`, the first time at which something was known of them."""
    states = table_of({key: customers[key] for key in (CUSTOMER_ID, EVENT_TIMESTAMP)})
    grouped = states.group_by(CUSTOMER_ID).aggregate([(EVENT_TIMESTAMP, "min")])
    return grouped.rename_columns([CUSTOMER_ID, "known"])


def customer_rules(table: Table, columns: Columns, since: pa.Table) -> list[Problem]:
    """Rows of customers that are not in the customers table (error), and rows before they are known (note)."""
    ids = columns[CUSTOMER_ID]
    position = kernels.index_in(ids, value_set=since[CUSTOMER_ID].combine_chunks())
    problems = []
    stranger = mask_of(ids.is_valid()) & mask_of(position.is_null())
    if stranger.any():
        counted = rows_of(stranger, [(CUSTOMER_ID, ids)])
        problems.append(Problem(table, CUSTOMER_ID, Rule.CUSTOMER, *counted))
    if EVENT_TIMESTAMP in columns:
        times = columns[EVENT_TIMESTAMP]
        early = mask_of(kernels.less(times, since["known"].take(position)))
        if early.any():
            counted = rows_of(early, [(CUSTOMER_ID, ids), (EVENT_TIMESTAMP, times)])
            problems.append(Problem(table, EVENT_TIMESTAMP, Rule.EARLY, *counted, severity="note"))
    return problems


def _repeated(table: Table, rule: Rule, columns: Columns, keys: list[str]) -> list[Problem]:
    rows, first_row = _first_of(columns, keys)
    later = rows != first_row
    if not later.any():
        return []
    shown = _shown_with_first(columns, keys, rows[later], first_row[later])
    return [Problem(table, keys[0], rule, int(later.sum()), shown)]


def _first_of(columns: Columns, keys: list[str]) -> tuple[RowNumbers, RowNumbers]:
    """Rows [k] whose keys occur more than once, ascending, and for each the first row with its keys."""
    rows = _suspects(columns, keys)
    group = _groups(columns, keys, rows)
    _, earliest, sizes = np.unique(group, return_index=True, return_counts=True)
    # unique numbers its values from 0 upwards, and so are groups numbered: `group` indexes both.
    return rows[sizes[group] > 1], rows[earliest[group]][sizes[group] > 1]


def _suspects(columns: Columns, keys: list[str]) -> RowNumbers:
    """Rows, ascending, whose keys have a hash that occurs more than once; rows with a null key are left out.

    Comparing 64-bit hashes first takes some 40 bytes per row, however long the keys; only the suspects are
    compared as they are.
    """
    numbers = column_of(np.arange(_length(columns), dtype=np.int64))
    whole = table_of({**{key: columns[key] for key in keys}, "row": numbers})
    quoted = ", ".join(f'"{key}"' for key in keys)
    nowhere_null = " AND ".join(f'"{key}" IS NOT NULL' for key in keys)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("keyed", whole)
        found = connection.execute(f"SELECT row, hash({quoted}) AS hashed FROM keyed WHERE {nowhere_null}").fetchnumpy()
    order = np.argsort(found["hashed"])
    ordered = found["hashed"][order]
    equal = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(ordered), dtype=np.bool_)
    shared[1:] |= equal
    shared[:-1] |= equal
    suspects: RowNumbers = np.sort(found["row"][order[shared]])
    return suspects


def _groups(columns: Columns, keys: list[str], rows: RowNumbers) -> RowNumbers:
    """Numbers from 0, equal exactly where the rows agree in all `keys`; nulls agree with nulls."""
    chosen = take(table_of({key: columns[key] for key in keys}), rows)
    frame: pd.DataFrame = chosen.to_pandas(types_mapper=pd.ArrowDtype)
    return np.asarray(frame.groupby(keys, dropna=False, sort=False).ngroup(), dtype=np.int64)


def _shown_with_first(columns: Columns, keys: list[str], rows: RowNumbers, first: RowNumbers) -> tuple[str, ...]:
    shown = []
    for row, first_row in zip(rows[:SHOWN].tolist(), first[:SHOWN].tolist(), strict=True):
        values = ", ".join(f"{key}={columns[key][row].as_py()}" for key in keys)
        shown.append(f"row {row + 1}: {values}, as in row {first_row + 1}")
    return tuple(shown)


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))
