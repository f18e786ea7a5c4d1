"""The log that a campaign reads block by block: what it leaves out changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalog import Catalog, Channel, Product
from features.columns import Event, Table
from features.customer_events import ROWS_AT_ONCE, EventsByCustomer, write_customer_events
from features.errors import ArtefactError
from features.home import Home
from features.importing import make_bank
from features.tables import arrow_schema
from serving.campaign_rules import CampaignRules
from serving.caps import Contact
from serving.history import Receipts, contacts, contacts_of, responses
from serving.policies import Layers

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = arrow_schema(Table.TIMELINE, ())
CATALOG = Catalog("EUR", "UTC", (Product("card", "Card"),), (Channel("sms", "SMS"), Channel("app", "App")))


def log(seed: int, events: int = 40) -> pa.Table:
    """Receipts of few customers, decisions and messages, so that many of them have to do with each other."""
    draw = np.random.default_rng(seed)

    def some(*values: str | None) -> list[str | None]:
        return [values[number] for number in draw.integers(0, len(values), events)]

    columns = {
        "event_id": [f"e{number}" for number in range(events)],
        "customer_id": some("anna", "ben"),
        "event_timestamp": [START + timedelta(days=int(day)) for day in draw.integers(0, 60, events)],
        "kind": some("sent", "delivered", "failed", "decided"),
        "channel": some("sms", "app", None),
        "product_id": some("card", None),
        "decision_id": some(*(f"d{number}" for number in range(8)), None, None),
        "message_id": some(*(f"m{number}" for number in range(8)), None, None, None),
    }
    nulls = {name: pa.nulls(events, SCHEMA.field(name).type) for name in SCHEMA.names if name not in columns}
    return pa.table({**columns, **nulls}).select(SCHEMA.names).cast(SCHEMA)


def after(made: Iterator[Contact], at_us: int) -> list[Contact]:
    return sorted((one for one in made if one.at_us > at_us), key=lambda one: (one.at_us, one.decision_id))


@pytest.mark.parametrize("day", [20, 45])
def test_contacts_after_a_moment_are_those_of_the_whole_log(day: int) -> None:
    since = int((START + timedelta(days=day)).timestamp() * 1e6)
    fewer = 0
    for seed in range(60):
        bank = make_bank(CATALOG, {Table.TIMELINE: log(seed)}, ())
        table, receipts = bank.tables[Table.TIMELINE], Receipts.of(bank)
        whole, late = contacts_of(bank, table, receipts), list(contacts_of(bank, table, receipts, since))
        assert after(iter(late), since) == after(whole, since), seed
        fewer += len(late) < len(list(contacts(bank)))
    assert fewer > 5


def test_rules_with_the_log_of_a_block_say_what_those_with_all_of_it_say(simulated_home: Home) -> None:
    build = simulated_home.build()
    made: dict[str, list[Contact]] = {}
    for contact in contacts(build.bank):
        made.setdefault(contact.customer_id, []).append(contact)
    whole = CampaignRules(Layers.of(build.catalog), made, responses(build.bank), 2)
    known = build.bank.first_known[0].tolist()
    allowed = np.ones((len(build.catalog.products), len(build.catalog.channels)), dtype=np.bool_)
    told = set()
    for later in (timedelta(0), timedelta(days=-100)):
        moment = build.data_end + later
        block = CampaignRules.of(build, 2).among([*known[::3], "stranger"], moment)
        assert sum(map(len, block.contacts.values())) < sum(map(len, made.values()))
        theirs = {one: given for one, given in whole.responses.items() if one in known[::3]}
        assert block.responses == theirs != {}
        for customer in (*known[::3], "stranger"):
            one, other = (rules.situation(customer, moment, {}, frozenset()) for rules in (whole, block))
            np.testing.assert_array_equal(whole.refused(one, allowed), block.refused(other, allowed))
            left = [whole.left(counted, one) for counted in whole.counted]
            assert left == [block.left(counted, other) for counted in block.counted]
            told.add((tuple(left), int(whole.refused(one, allowed).sum())))
    assert len(told) > 3


def test_events_of_many_customers_are_theirs_and_other_groups_are_not_read(tmp_path: Path) -> None:
    many = 3 * ROWS_AT_ONCE
    ids = [f"c{number // 4:06d}" for number in range(many)]
    nulls = {name: pa.nulls(many, SCHEMA.field(name).type) for name in SCHEMA.names}
    times = [START] * many
    table = pa.table(
        {**nulls, "customer_id": ids, "event_timestamp": times, "event_id": [f"e{n:07d}" for n in range(many)]}
    )
    write_customer_events(table.cast(SCHEMA), tmp_path)
    [path] = tmp_path.iterdir()
    group = pq.ParquetFile(path).metadata.row_group(1)
    with path.open("r+b") as file:  # the second of three groups can be read no more
        file.seek(group.column(0).dictionary_page_offset or group.column(0).data_page_offset)
        file.write(b"\0" * 2_000)
    events = EventsByCustomer(tmp_path)
    asked = ["a", "c000000", "c000007", "c006143", "z"]
    found = events.of(asked, ("event_id", "customer_id"))
    expected = [(f"e{n:07d}", one) for n, one in enumerate(ids) if one in set(asked)]
    assert list(zip(*(found[name].to_pylist() for name in found.column_names), strict=True)) == expected
    assert events.of(["nobody"], (Event.KIND,)).num_rows == events.of([], (Event.KIND,)).num_rows == 0
    with pytest.raises(ArtefactError, match="build the features again"):
        events.of(["c003000"], ("event_id",))
