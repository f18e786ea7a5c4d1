"""A simulated bank in the format of a bank data directory, with the truth beside it.

The folder holds `catalog.toml`, `customers.parquet`, `holdings.parquet`, `transactions.parquet`, `timeline.parquet`
and `truth/`. The same customers, months and seed always give the same bytes. `simulation.truth_files.load_truth`
reads the truth, `simulation.truth.Truth` answers what would have followed any action.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.errors import InputError
from features.progress import SILENT, Progress
from features.simulation.calendar import DAY, month_starts
from features.simulation.catalog import bank_catalog, catalog_toml
from features.simulation.events import EventLog
from features.simulation.files import TableFile, ids, write_table
from features.simulation.ownership import Ownership, first_holdings, held_at_months, holdings_table
from features.simulation.parameters import draw_parameters
from features.simulation.population import People, draw_people
from features.simulation.profiles import customers_table
from features.simulation.steps import Steps
from features.simulation.transactions import Spending
from features.simulation.truth import Truth
from features.simulation.truth_files import DECISIONS, MARKER, TRUTH, write_truth

VERSION = 1
"""Raised with every change of what the same seed gives."""
MOST_CUSTOMERS = 10**8


def simulate(directory: Path, customers: int, months: int, seed: int, progress: Progress = SILENT) -> None:
    """Make a simulated bank of `customers` over `months` calendar months from 2024-01-01 in `directory`.

    The folder appears complete or not at all. An identical one is left as it is, another simulated bank is replaced.

    Raises InputError for numbers out of range, and when the folder holds anything but a simulated bank.
    """
    _check(customers, months, seed)
    wanted = {"version": VERSION, "customers": customers, "months": months, "seed": seed}
    directory = directory.resolve()
    if _is_there(directory, wanted):
        return
    draft = directory.with_name(f".{directory.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        (draft / TRUTH).mkdir(parents=True)
        _write_bank(draft, customers, months, seed, progress)
        marker = wanted | {"files": _sizes(draft)}
        (draft / TRUTH / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
        _replace(draft, directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check(customers: int, months: int, seed: int) -> None:
    for name, value, least, most in (
        ("customers", customers, 1, MOST_CUSTOMERS),
        ("months", months, 1, 120),
        ("seed", seed, 0, 2**63 - 1),
    ):
        if not least <= value <= most:
            raise InputError(f"{name} must be between {least} and {most}, however it is {value}; choose another")


def _write_bank(folder: Path, customers: int, months: int, seed: int, progress: Progress) -> None:
    catalog = bank_catalog()
    streams = [np.random.Generator(np.random.SFC64(s)) for s in np.random.SeedSequence(seed).spawn(6)]
    starts = month_starts(months)
    end = float(starts[-1])
    digits = 8 if customers * Steps.count(end / DAY) * 2 < 10**8 else 12
    (folder / "catalog.toml").write_text(catalog_toml(catalog), encoding="utf-8")
    with progress.step("people"):
        customer_ids = ids("c", np.arange(customers), 8)
        people = draw_people(streams[0], customers, starts)
        write_table(folder / "customers.parquet", customers_table(streams[1], people, customer_ids))
    truth = Truth(
        parameters=draw_parameters(streams[2]),
        customer_ids=tuple(customer_ids.to_pylist()),
        product_ids=catalog.product_ids,
        channel_ids=catalog.channel_ids,
        content_ids=tuple(content.id for content in catalog.contents),
        latents=people.latents,
        month_starts=starts,
        need=people.need,
        address=people.address,
    )
    held_first = first_holdings(streams[3], people, truth)
    ownership = Ownership(streams[3], truth, held_first, people.known)
    with (
        progress.step("decisions and reactions", Steps.count(end / DAY) + 1) as advance,
        TableFile(folder / "timeline.parquet") as timeline,
        TableFile(folder / TRUTH / DECISIONS) as decisions,
    ):
        log = EventLog(timeline, catalog, customer_ids, end, digits)
        Steps(streams[4], people, truth, ownership, log, decisions, digits).run(advance)
    changes = ownership.log(end)
    write_table(folder / "holdings.parquet", holdings_table(changes, customer_ids))
    held = held_at_months(changes, starts, customers)
    with progress.step("truth"):
        write_truth(folder / TRUTH, truth, held, people.known)
    _write_transactions(folder, streams[5], people, customer_ids, truth, held, progress)


def _write_transactions(
    folder: Path,
    random: np.random.Generator,
    people: People,
    customer_ids: pa.Array,
    truth: Truth,
    held: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    progress: Progress,
) -> None:
    starts = truth.month_starts
    spending = Spending(random, people, customer_ids)
    with (
        progress.step("transactions", len(held)) as advance,
        TableFile(folder / "transactions.parquet") as file,
    ):
        for month in range(len(held)):
            spending.write_month(file, month, float(starts[month]), float(starts[month + 1]), held[month])
            advance(1)


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _is_there(directory: Path, wanted: dict[str, int]) -> bool:
    """True when the very bank that is wanted is there; InputError when something is that may not be replaced."""
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise InputError(f"a simulated bank is a folder, however {directory} is a file; choose another path")
    marker = directory / TRUTH / MARKER
    found = _sizes(directory)
    if not found:
        return False
    if not marker.is_file():
        raise InputError(
            f"only a simulated bank may be replaced, however {directory} holds other files "
            f"({', '.join(list(found)[:3])}); choose another folder"
        )
    known = _read_marker(marker)
    files: dict[str, int] = known.pop("files")
    if known == wanted and all(found.get(name) == size for name, size in files.items()):
        return True
    others = sorted(set(found) - set(files) - {f"{TRUTH}/{MARKER}"})
    if others:
        raise InputError(
            f"only a simulated bank may be replaced, however {directory} also holds {', '.join(others[:3])}; "
            "move these files away or choose another folder"
        )
    return False


def _read_marker(marker: Path) -> dict[str, Any]:
    try:
        known = json.loads(marker.read_text(encoding="utf-8"))
        if isinstance(known, dict) and isinstance(known["files"], dict):
            return known
    except (ValueError, KeyError):
        pass
    raise InputError(
        f"only a simulated bank may be replaced, however {marker} is not the marker of one; choose another folder"
    )


def _replace(draft: Path, directory: Path) -> None:
    """Put the finished draft in place. Killed in between, there is no bank, never half a one."""
    old = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        directory.rename(old)
    draft.rename(directory)
    shutil.rmtree(old, ignore_errors=True)
