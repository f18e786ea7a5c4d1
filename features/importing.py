"""Importing a bank data directory, and keeping the imported copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features import kept_tables
from features.arrow import Column, kernels, mask_of
from features.catalog import Catalog, load_catalog
from features.catalog_file import CATALOG_FILE, render_catalog
from features.columns import Kind, Table
from features.customer_events import write_customer_events
from features.errors import BankDataError, InputError
from features.kept_tables import KeptTables
from features.problems import format_problems
from features.quality import check
from features.schema import Attribute, Int64, Texts
from features.served import Served, join_served
from features.tables import arrow_schema

BANK_FILE = "bank.json"
SERVED_FILE = "served.parquet"

_FORMAT = 2
"""Of the imported copy; raised when its meaning changes, so that an older copy is imported anew."""

_SLICE = 1 << 18
"""Rows that are hashed at a time; part of what the fingerprint means."""


@dataclass(frozen=True)
class Bank:
    """A bank's data, checked. Every table of the format is there, empty where the folder had none.

    fingerprint: SHA-256 in hex over the catalogue and the tables' contents, the same for CSV and Parquet and for
    any order of rows, columns and keys in the files; and over what a ledger added to the timeline, if it did.
    served: which events of the timeline the ledger added.
    """

    catalog: Catalog
    tables: Mapping[Table, pa.Table]
    attributes: tuple[Attribute, ...]
    fingerprint: str
    served: Served = field(default_factory=Served)

    @cached_property
    def first_known(self) -> tuple[Texts, Int64]:
        """Every customer's id, object [N] in order, and the time of the first fact of any table about them, int64 [N],
        µs since 1970 UTC. Worked out once."""
        return kept_tables.first_known(self.tables)

    @cached_property
    def newest(self) -> int | None:
        """µs of the newest event of any table; None where there is none."""
        return kept_tables.newest(self.tables)

    @cached_property
    def take_ups(self) -> pa.Table:
        """See `features.takeups.take_ups`. Worked out once."""
        from features.takeups import find_take_ups  # it knows a bank

        return find_take_ups(self)

    def columns(self, table: Table, names: Sequence[str], kinds: Collection[Kind] | None = None) -> pa.Table:
        """Columns of a table in its order; of the timeline, only events of these kinds (None: all)."""
        return kept_tables.columns(self.tables, table, names, kinds)

    def cut(self, at: int) -> Bank:
        """The bank as it was known at `at` (µs): every row later than that is gone."""
        return replace(self, tables=kept_tables.cut(self.tables, at))

    def before_ledger(self) -> Bank:
        """The bank without what the ledger added to its timeline."""
        own = kept_tables.replaced(self.tables, Table.TIMELINE, self.own_timeline)
        return replace(self, tables=own, served=Served())

    @property
    def own_timeline(self) -> pa.Table:
        """The timeline without what the ledger added."""
        return self.served.left_of(self.tables[Table.TIMELINE])


def read_bank(directory: Path, served: pa.Table | None = None) -> Bank:
    """Check and read a bank data directory. Raises BankDataError with all its problems; writes nothing.

    served: events of the ledger (`features.served.SERVED_SCHEMA`) that the timeline takes in.
    """
    checked = check(directory)
    if checked.errors or checked.catalog is None:
        raise BankDataError(
            f"{directory} cannot be imported, because it breaks rules of the format:\n"
            f"{format_problems(checked.errors)}\n"
            f"Nothing was written. Correct the data, then look again with `nextbest data check {directory}`.",
            checked.problems,
        )
    return make_bank(checked.catalog, checked.tables, checked.attributes, served)


def make_bank(
    catalog: Catalog,
    tables: Mapping[Table, pa.Table],
    attributes: Sequence[Attribute],
    served: pa.Table | None = None,
) -> Bank:
    """A bank of tables that keep the rules already; absent tables become empty ones. served: see `read_bank`."""
    empty = {table: _schema(table, attributes).empty_table() for table in Table}
    complete = {table: tables.get(table, empty[table]) for table in Table}
    added = Served()
    if served is not None:
        timeline, added = join_served(complete[Table.TIMELINE], served, complete[Table.CUSTOMERS], catalog)
        complete[Table.TIMELINE] = timeline
    return Bank(catalog, complete, tuple(attributes), fingerprint(catalog, complete, added), added)


def fingerprint(catalog: Catalog, tables: Mapping[Table, pa.Table], served: Served | None = None) -> str:
    """SHA-256 in hex over the catalogue as canonical TOML and all values of the tables, in the tables' order."""
    digest = hashlib.sha256(render_catalog(catalog).encode())
    for name in Table:
        table = tables[name]
        for column in table.schema:
            digest.update(json.dumps([name, column.name, str(column.type), table.num_rows]).encode())
            for start in range(0, table.num_rows, _SLICE):
                _update(digest, table[column.name].slice(start, _SLICE))
    if served:
        digest.update(json.dumps(dict(served.left_out), sort_keys=True).encode())
        for name in served.known.column_names:
            _update(digest, served.known[name])
    return digest.hexdigest()


def _update(digest: Any, values: Column) -> None:
    """Hash which values are there, then the values, with nulls as 0 or "": what Arrow keeps there is undefined."""
    digest.update(np.packbits(mask_of(values.is_valid())).tobytes())
    if pa.types.is_string(values.type):
        texts = kernels.fill_null(values, "").combine_chunks()
        digest.update(kernels.binary_length(texts).to_numpy().tobytes())
        _, ends, characters = texts.buffers()
        if characters is not None:
            ends = np.frombuffer(ends, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
            digest.update(memoryview(characters)[ends[0] : ends[-1]])
        return
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    zero = pa.scalar(0).cast(values.type)
    digest.update(kernels.fill_null(values, zero).to_numpy().tobytes())


def write_bank(bank: Bank, folder: Path) -> None:
    """Write the imported copy into `folder`, which is made. `load_bank` gives the same bank."""
    write_directory(bank, folder)
    pq.write_table(bank.served.known, folder / SERVED_FILE, compression="zstd")
    kept_tables.write_first_known(bank.tables, folder)
    write_customer_events(bank.tables[Table.TIMELINE], folder)
    content = {
        "format": _FORMAT,
        "fingerprint": bank.fingerprint,
        "attributes": [asdict(attribute) for attribute in bank.attributes],
        "left_out": dict(bank.served.left_out),
    }
    (folder / BANK_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_directory(bank: Bank, folder: Path) -> None:
    """Write tables and catalogue as a bank data directory, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in bank.tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    (folder / CATALOG_FILE).write_text(render_catalog(bank.catalog), encoding="utf-8")


def load_bank(folder: Path) -> Bank:
    """An imported copy, without checking the data again. Raises InputError when it is not a whole one.

    Tables are read when they are asked for.
    """
    try:
        content = json.loads((folder / BANK_FILE).read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"its format is {content['format']}, this version reads {_FORMAT}")
        attributes = tuple(Attribute(**item) for item in content["attributes"])
        tables = KeptTables(folder, {table: _kept_schema(table, folder, attributes) for table in Table})
        with pq.ParquetFile(folder / SERVED_FILE) as file:
            served = Served(file.read(), content["left_out"])
        return Bank(load_catalog(folder / CATALOG_FILE), tables, attributes, content["fingerprint"], served)
    except (OSError, ValueError, KeyError, TypeError, BankDataError) as error:
        raise InputError(
            f"{folder} is not a whole imported copy ({error}); import again with `nextbest features build DIR`"
        ) from error


def _kept_schema(table: Table, folder: Path, attributes: Sequence[Attribute]) -> pa.Schema:
    path = folder / f"{table}.parquet"
    schema = pq.read_schema(path)
    if schema != _schema(table, attributes):
        raise ValueError(f"{path.name} has other columns than {BANK_FILE} says")
    return schema


def _schema(table: Table, attributes: Sequence[Attribute]) -> pa.Schema:
    return arrow_schema(table, tuple(attributes) if table is Table.CUSTOMERS else ())
