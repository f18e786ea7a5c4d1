"""Tables of an imported copy, read as far as they are asked for: the same as those that were imported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features import kept_tables
from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Table
from features.errors import InputError
from features.importing import Bank, load_bank, read_bank, write_bank
from features.kept_tables import FIRST_KNOWN_FILE, KeptTables
from features.takeups import take_ups

DAY = 86_400_000_000
MOMENTS = [None, 0, 1_704_067_200_000_000 + 12 * DAY, 1_704_067_200_000_000 + 15 * DAY + 1]


@pytest.fixture
def both(small_bank_folder: Path, tmp_path: Path) -> tuple[Bank, Bank]:
    """A bank in memory, and its copy."""
    bank = read_bank(small_bank_folder)
    write_bank(bank, tmp_path / "copy")
    return bank, load_bank(tmp_path / "copy")


def at(banks: tuple[Bank, Bank], moment: int | None) -> tuple[Bank, Bank]:
    return banks if moment is None else (banks[0].cut(moment), banks[1].cut(moment))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kinds", [None, {Kind.CONVERTED}, {Kind.DECIDED, Kind.VISITED}, set()])
def test_columns_of_some_kinds_of_events_are_those_of_the_whole_table(
    both: tuple[Bank, Bank], moment: int | None, kinds: set[Kind] | None
) -> None:
    names = [Event.EVENT_ID, EVENT_TIMESTAMP, Event.VALUE, CUSTOMER_ID]
    memory, copy = at(both, moment)
    assert copy.columns(Table.TIMELINE, names, kinds).equals(memory.columns(Table.TIMELINE, names, kinds))
    assert isinstance(copy.tables, KeptTables)
    assert not copy.tables.whole


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("older", [False, True])
def test_what_is_newest_and_since_when_customers_are_known_is_what_the_tables_tell(
    both: tuple[Bank, Bank], moment: int | None, older: bool
) -> None:
    """older: a copy from before the first facts were kept beside it."""
    memory, copy = at(both, moment)
    assert isinstance(copy.tables, KeptTables)
    if older:
        (copy.tables.folder / FIRST_KNOWN_FILE).unlink()
    assert copy.newest == memory.newest
    for one, other in zip(copy.first_known, memory.first_known, strict=True):
        assert np.array_equal(one, other)
        assert one.dtype == other.dtype
    assert all(copy.tables[table].equals(memory.tables[table]) for table in Table)


@pytest.mark.parametrize("moment", MOMENTS)
def test_take_ups_are_found_without_reading_transactions_or_a_whole_timeline(
    both: tuple[Bank, Bank], moment: int | None
) -> None:
    memory, copy = at(both, moment)
    assert take_ups(copy).equals(take_ups(memory))
    assert isinstance(copy.tables, KeptTables)
    assert copy.tables.whole.keys() <= {Table.CUSTOMERS, Table.HOLDINGS}


def test_a_table_in_the_place_of_another_tells_when_its_customers_were_known(both: tuple[Bank, Bank]) -> None:
    memory, copy = both
    early = memory.tables[Table.TIMELINE].slice(0, 1)
    changed = [kept_tables.first_known(kept_tables.replaced(bank.tables, Table.CUSTOMERS, early)) for bank in both]
    assert all(np.array_equal(one, other) for one, other in zip(*changed, strict=True))
    assert not np.array_equal(changed[1][1], copy.first_known[1])


def test_a_file_that_is_damaged_behind_its_footer_is_refused_when_it_is_read(both: tuple[Bank, Bank]) -> None:
    _, copy = both
    assert isinstance(copy.tables, KeptTables)
    path = copy.tables.path(Table.TIMELINE)
    path.write_bytes(b"PAR1" + bytes(path.stat().st_size - 4))
    with pytest.raises(InputError, match="nextbest features build"):
        copy.columns(Table.TIMELINE, [Event.EVENT_ID])
    with pytest.raises(InputError, match="nextbest features build"):
        copy.tables[Table.TIMELINE]
