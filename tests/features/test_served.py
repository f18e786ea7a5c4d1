"""The ledger's events in the bank's timeline: one timeline, nothing twice, and nothing changed where there are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from features.build import build_features
from features.columns import Table
from features.errors import InputError
from features.evidence import evidence
from features.home import Build, Home
from features.importing import Bank, load_bank, read_bank, write_bank, write_directory
from features.quality import check
from features.served import SERVED_SCHEMA
from features.takeups import take_ups


def event(name: str, customer: str, kind: str, day: float, **columns: Any) -> dict[str, Any]:
    """An event of the ledger, known at once; days are counted from 2024-01-01 as day 1."""
    at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day - 1)
    row = dict.fromkeys(SERVED_SCHEMA.names) | {"event_id": name, "customer_id": customer, "kind": kind, **columns}
    return row | {"event_timestamp": at, "created_timestamp": at}


def served(*events: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(events), schema=SERVED_SCHEMA)


OURS = served(
    event("s2", "c1", "delivered", 31, channel="app_push", decision_id="d9", message_id="m9"),
    event("s1", "c1", "decided", 30, channel="app_push", product_id="loan", decision_id="d9", propensity=0.5),
    event("s3", "c2", "visited", 5.5, channel="website"),
)


def test_the_timeline_takes_the_events_in_by_time_and_knows_which_they_are(small_bank_folder: Path) -> None:
    alone, bank = read_bank(small_bank_folder), read_bank(small_bank_folder, OURS)
    timeline = bank.tables[Table.TIMELINE]
    assert timeline.schema == alone.tables[Table.TIMELINE].schema
    assert timeline["event_id"].to_pylist() == ["s3", *(f"e{n:02d}" for n in range(13)), "s1", "s2"]
    assert bank.served.known["event_id"].to_pylist() == ["s1", "s2", "s3"]
    assert bank.served.among(timeline["event_id"]).tolist() == [True] + [False] * 13 + [True, True]
    assert bank.own_timeline.equals(alone.tables[Table.TIMELINE])
    for table in (Table.CUSTOMERS, Table.HOLDINGS, Table.TRANSACTIONS):
        assert bank.tables[table].equals(alone.tables[table])


def test_an_event_that_the_tables_tell_already_counts_once_and_the_tables_win(small_bank_folder: Path) -> None:
    told = event("e05", "c2", "converted", 15, product_id="fund")
    bank = read_bank(small_bank_folder, served(told))
    alone = read_bank(small_bank_folder)
    assert bank.tables[Table.TIMELINE].equals(alone.tables[Table.TIMELINE])
    assert bank.fingerprint == alone.fingerprint
    assert not bank.served


@pytest.mark.parametrize("nothing", [None, served()])
def test_without_events_nothing_changes(nothing: pa.Table | None, small_bank_folder: Path) -> None:
    bank, alone = read_bank(small_bank_folder, nothing), read_bank(small_bank_folder)
    assert bank.fingerprint == alone.fingerprint
    assert bank.own_timeline is bank.tables[Table.TIMELINE]


def test_what_tables_and_catalogue_do_not_know_is_left_out_and_counted_once(small_bank_folder: Path) -> None:
    strange = served(
        event("s1", "stranger", "visited", 5, channel="fax"),
        event("s2", "c1", "visited", 5, channel="fax"),
        event("s3", "c1", "clicked", 5, channel="voice", product_id="bond"),
        event("s4", "c1", "sent", 5, channel="voice", content_id="gone"),
        event("s5", "c1", "visited", 5, channel="website"),
    )
    bank = read_bank(small_bank_folder, strange)
    assert bank.served.known["event_id"].to_pylist() == ["s5"]
    assert bank.served.left_out == {
        "about customers that the tables do not know": 1,
        "about products that the catalogue no longer has": 1,
        "about channels that the catalogue no longer has": 1,
        "about contents that the catalogue no longer has": 1,
    }


def test_other_columns_are_refused(small_bank_folder: Path) -> None:
    with pytest.raises(InputError, match="created_timestamp"):
        read_bank(small_bank_folder, OURS.drop_columns(["created_timestamp"]))


def test_the_fingerprint_is_that_of_the_events_in_any_order(small_bank_folder: Path) -> None:
    bank = read_bank(small_bank_folder, OURS)
    assert read_bank(small_bank_folder, OURS.take([2, 0, 1])).fingerprint == bank.fingerprint
    assert read_bank(small_bank_folder, OURS.slice(1)).fingerprint != bank.fingerprint
    later = OURS.set_column(
        12, "created_timestamp", pa.array([datetime(2025, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("us", tz="UTC"))
    )
    assert read_bank(small_bank_folder, later).fingerprint != bank.fingerprint


def same(one: Bank, other: Bank) -> bool:
    tables = all(one.tables[name].equals(other.tables[name]) for name in Table)
    served = one.served.known.equals(other.served.known) and one.served.left_out == other.served.left_out
    return tables and served and one.fingerprint == other.fingerprint and one.catalog == other.catalog


def test_the_imported_copy_remembers_which_events_were_served(small_bank_folder: Path, tmp_path: Path) -> None:
    strange = event("s9", "stranger", "visited", 5)
    bank = read_bank(small_bank_folder, pa.concat_tables([OURS, served(strange)]))
    write_bank(bank, tmp_path / "copy")
    assert same(load_bank(tmp_path / "copy"), bank)


def test_what_is_exported_is_a_sound_bank_with_the_same_timeline(small_bank_folder: Path, tmp_path: Path) -> None:
    bank = read_bank(small_bank_folder, OURS)
    write_directory(bank, tmp_path / "out")
    assert check(tmp_path / "out").problems == check(small_bank_folder).problems
    again = read_bank(tmp_path / "out", OURS)
    assert all(again.tables[name].equals(bank.tables[name]) for name in Table)
    assert not again.served, "they are the bank's own now"


def test_a_build_with_the_ledger_is_another_one_and_its_features_know_of_it(
    small_bank_folder: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    alone = build_features(small_bank_folder, home)
    joined = build_features(small_bank_folder, home, served=OURS)
    assert joined.fingerprint != alone.fingerprint
    assert joined.data_end == datetime(2024, 1, 31, tzinfo=UTC)
    assert (home.build(), build_features(small_bank_folder, home, served=OURS)) == (joined, joined)
    assert build_features(small_bank_folder, home) == alone
    offered = "loan__offered"

    def newest(build: Build) -> Any:
        from features.packed import OnlineStates

        state = OnlineStates(build.online_path, build.views).read(["c1"])["purchases"]
        view = next(view for view in build.views if view.name == "purchases")
        return state.numbers[0, view.numbers.index(offered)]

    assert not newest(alone) > 0
    assert newest(joined) == 1.0


def test_contacts_are_counted_by_the_receipts_of_whoever_keeps_them(small_bank_folder: Path) -> None:
    """The bank's own log tells of messages that were sent; this ledger tells of decisions alone."""
    alone, joined = (evidence(read_bank(small_bank_folder, ours)) for ours in (None, OURS.slice(1, 1)))
    assert alone.contacts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert joined.contacts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    receipts = pa.concat_tables([OURS, served(event("s4", "c1", "sent", 30, channel="voice", decision_id="d8"))])
    assert evidence(read_bank(small_bank_folder, receipts)).sent.tolist() == [1, 1, 0], "a receipt counts, not a plan"


def test_a_holding_that_was_opened_before_its_conversion_dates_the_take_up(small_bank_folder: Path) -> None:
    """The card was opened on day 2, the loan on day 3; each conversion is told once, and none is told twice."""
    told = served(
        event("s1", "c1", "converted", 2.75, product_id="card", decision_id="d1"),
        event("s2", "c1", "converted", 2.5, product_id="card"),  # the same opening
        event("s3", "c2", "converted", 4.5, product_id="loan"),  # more than a day later: another one
        event("s4", "c2", "converted", 9, product_id="fund"),
    )
    found = take_ups(read_bank(small_bank_folder, told)).to_pylist()
    days = [(row["event_timestamp"] - datetime(2023, 12, 31, tzinfo=UTC)) / timedelta(days=1) for row in found]
    assert [(day, row["product_id"], row["event_id"]) for day, row in zip(days, found, strict=True)] == [
        (2.0, "card", "s1"),
        (3.0, "loan", None),
        (4.5, "loan", "s3"),
        (9.0, "fund", "s4"),
    ]
