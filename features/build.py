"""`nextbest features build DIR`: from a bank data directory to features, ready for training and for serving.

The steps are in `build_features`, in order. Interrupted anywhere, the next call starts over and ends with the same
features; a complete build of the same input is used as it is, without importing Feast.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from features.arrow import Column, column_of, kernels, table_of
from features.columns import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from features.errors import NotBuilt
from features.home import FEATURES_VERSION, Build, Home
from features.online_states import holds, keep_only
from features.packing import key_column, layout, microseconds, seconds
from features.progress import SILENT, Progress
from features.schema import View

if TYPE_CHECKING:
    from features.importing import Bank

_ROW_GROUP = 100_000


def build_features(
    directory: Path, home: Home, progress: Progress = SILENT, served: pa.Table | None = None, online: str = ""
) -> Build:
    """Check and import the tables in `directory`, compute all feature views, and make them current in `home`.

    served: events of the home's ledger (`features.served.SERVED_SCHEMA`), which join the bank's timeline.
    online: URL of the Redis server that answers online; empty: a file of the build does.

    Raises BankDataError, with every problem found and nothing written, where the tables break the input format.
    """
    from features.importing import read_bank
    from features.views import state_tables, views

    with progress.step("check the bank's tables"):
        bank = read_bank(directory, served)
    wanted = views(bank.catalog, bank.attributes)
    fingerprint = features_fingerprint(bank.fingerprint, wanted)
    build = Build(home.builds / fingerprint[:16], fingerprint, wanted, data_end(bank))
    with _only_one(home):
        if not is_complete(build):
            make_build(build, bank, state_tables(bank), progress, online)
        elif not holds(build, online):
            bring_online(build, progress, online)
        before = home.current
        home.use(build)
        if online:  # memory is dear there: the build that servers may still read stays, those before it go
            keep_only(home.builds, {build.folder.name, before}, online)
    return Build.open(build.folder)


def make_build(
    build: Build, bank: Bank, states: Iterable[tuple[View, pa.Table]], progress: Progress, online: str = ""
) -> None:
    """Make the build in its folder, from nothing; the marker is written last."""
    from features.importing import write_bank

    shutil.rmtree(build.folder, ignore_errors=True)
    build.folder.mkdir(parents=True)
    with progress.step("import the tables"):
        write_bank(bank, build.bank_folder)
    store_states(build, states, progress)
    bring_online(build, progress, online)


def bring_online(build: Build, progress: Progress, online: str = "") -> None:
    """Bring the build's newest states into its online store, and mark it complete."""
    if not online:
        build.unmark()  # a file that is there in part looks like a whole one; a server marks what is whole
    with progress.step("load Feast"):
        from features import store
    with progress.step("apply the definitions to Feast"):
        store.apply(build, online)
    store.materialise(build, build.data_end, progress, online)
    build.mark_complete()


def is_complete(build: Build) -> bool:
    """Whether exactly this build is there, whole."""
    try:
        return Build.open(build.folder) == build
    except NotBuilt:
        return False


def store_states(build: Build, states: Iterable[tuple[View, pa.Table]], progress: Progress = SILENT) -> None:
    """Write each view's states over time as the Parquet file that Feast reads.

    states: a view may come several times, with later keys each time; its tables are put one after the other.
    """
    (build.folder / "views").mkdir(parents=True, exist_ok=True)
    with progress.step("compute the feature views") as advance, ExitStack() as files:
        written: dict[str, pq.ParquetWriter] = {}
        for view, table in states:
            source = source_table(view, table)
            if view.name not in written:
                written[view.name] = files.enter_context(_writer(build.view_path(view), view, source.schema))
            written[view.name].write_table(source, row_group_size=_ROW_GROUP)
            advance(1)


def _writer(path: Path, view: View, schema: pa.Schema) -> pq.ParquetWriter:
    """A file of states. Numbers lie byte by byte, which makes them small without dictionaries that cost twice as much.

    Only keys and texts repeat enough for a dictionary; DuckDB, Spark and Arrow read all of it.
    """
    numbers = [at_column(view), *view.numbers]
    repeating = [key_column(view), *view.texts]
    return pq.ParquetWriter(
        path, schema, compression="lz4", use_dictionary=repeating, use_byte_stream_split=numbers, version="2.6"
    )


def source_table(view: View, table: pa.Table) -> pa.Table:
    """A view's states as Feast reads them: typed, with the column `<view>__at`, in order of key and time.

    Times are microseconds: DuckDB 2 cannot materialise nanosecond UTC columns. The order lets DuckDB skip row groups.
    """
    key = key_column(view)
    time = pa.timestamp("us", "UTC")
    kinds = {"number": pa.float64(), "text": pa.string()}
    event = table.column(EVENT_TIMESTAMP).cast(time)
    columns: dict[str, Column] = {
        key: table.column(key).cast(pa.string()),
        EVENT_TIMESTAMP: event,
        CREATED_TIMESTAMP: table.column(CREATED_TIMESTAMP).cast(time),
        at_column(view): column_of(seconds(microseconds(event))),
    }
    columns |= {column.name: table.column(column.name).cast(kinds[column.kind]) for column in view.columns}
    order = [(key, "ascending"), (EVENT_TIMESTAMP, "ascending"), (CREATED_TIMESTAMP, "ascending")]
    return table_of(columns).sort_by(order)


def at_column(view: View) -> str:
    """Name of the extra column that carries a state's event time (seconds since 1970) through Feast."""
    return f"{view.name}__at"


def features_fingerprint(bank: str, views: Iterable[View]) -> str:
    """SHA-256 over all that decides what the features are: the data, the version of the code, the views."""
    parts = [bank, FEATURES_VERSION, [[view.name, view.ttl.total_seconds(), layout(view)] for view in views]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def data_end(bank: Bank) -> datetime:
    """UTC time of the latest event over all tables of the bank."""
    times = [kernels.max(table.column(EVENT_TIMESTAMP)).as_py() for table in bank.tables.values() if table.num_rows]
    return max(times).astimezone(UTC) if times else datetime(1970, 1, 1, tzinfo=UTC)


@contextmanager
def _only_one(home: Home) -> Iterator[None]:
    """Hold the home's lock: two builds at one moment take turns. The system lets go of it when a process dies."""
    home.root.mkdir(parents=True, exist_ok=True)
    with home.lock_path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
