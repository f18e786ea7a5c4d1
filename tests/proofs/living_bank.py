"""The simulated bank after its history: it lives on day by day, and what customers do follows from what it serves.

Needs, profiles, addresses, what customers earn and spend run as they were simulated. What they hold, take up, and do
with messages is drawn anew from the truth, day after day, given the messages that really went out. Effects that the
history had under way at the start end with it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from true_value import Messages, Numbers

from features.columns import CUSTOMER_ID, EVENT_TIMESTAMP, Event, Kind, Purpose, Table
from features.importing import read_bank
from features.schema import Bool, Float64, Int64
from features.simulation.calendar import DAY, START_SECONDS, month_of, to_micros
from features.simulation.catalog import CAPS
from features.simulation.events import PURPOSES
from features.simulation.messages import Counters, log_conversions
from features.simulation.ownership import Ownership, holdings_table
from features.simulation.reactions import IN_APP, react
from features.simulation.truth_files import held_before, load_truth
from features.simulation.visits import inbound, opt_in, service


def moment(when: float) -> datetime:
    """A time of the simulated calendar, with its zone."""
    return datetime.fromtimestamp(START_SECONDS + when, UTC)


@dataclass
class Outbox:
    """Events on their way to the service, as /v1/events takes them; posted when their time has come.

    It stands where the simulation has its log: positions of customers, channels, … become ids.
    """

    ids: Mapping[str, Sequence[str]]
    decisions: list[str] = field(default_factory=list)
    _waiting: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def add(self, kind: Kind, at: Float64, customer: Int64, **columns: Any) -> None:
        """One event per time in `at`, like `features.simulation.events.EventLog.add`."""
        full = {
            name: values if isinstance(values, np.ndarray) else np.full(len(at), values)
            for name, values in columns.items()
        }
        for place, (when, who) in enumerate(zip(at.tolist(), customer.tolist(), strict=True)):
            given = {name: values[place] for name, values in full.items()}
            number = next(self._numbers)
            heapq.heappush(self._waiting, (when, number, self._document(kind, when, who, given, number)))

    def due(self, now: float) -> list[dict[str, Any]]:
        """Events up to `now`, in order of time; each is given out once."""
        found = []
        while self._waiting and self._waiting[0][0] <= now:
            found.append(heapq.heappop(self._waiting)[2])
        return found

    def _document(self, kind: Kind, when: float, who: int, given: Mapping[str, Any], number: int) -> dict[str, Any]:
        at = datetime.fromtimestamp(int(to_micros(np.array([when]))[0]) / 1e6, UTC)
        document = {
            "event_id": f"living-{number:09d}",
            "customer_id": self.ids["customer"][who],
            "event_timestamp": at.isoformat(),
            "kind": str(kind),
        }
        for name, column in (
            ("channel", Event.CHANNEL), ("purpose", Event.PURPOSE), ("product", Event.PRODUCT_ID),
            ("content", Event.CONTENT_ID),
        ):  # fmt: skip
            if given.get(name, -1) >= 0:
                document[column] = self.ids[name][int(given[name])]
        if given.get("decision", -1) >= 0:
            document[Event.DECISION_ID] = self.decisions[int(given["decision"])]
            document[Event.MESSAGE_ID] = f"{document[Event.DECISION_ID]}.1"
        elif given.get("message", -1) >= 0:
            document[Event.MESSAGE_ID] = f"service-{int(given['message'])}"
        if "value" in given:
            document[Event.VALUE] = float(given["value"])
        return document


class LivingBank:
    """A bank simulated into `folder`, lived on from `now` (seconds of the simulated calendar)."""

    def __init__(self, folder: Path, start: float, seed: int) -> None:
        self.truth = load_truth(folder)
        self._bank = read_bank(folder)
        self._catalog_file = (folder / "catalog.toml").read_text(encoding="utf-8")
        self.start = self.now = start
        self._random = np.random.default_rng([seed, 6])
        everyone = np.arange(len(self.truth.customer_ids))
        then = np.full(len(everyone), start)
        customers = self._bank.tables[Table.CUSTOMERS]
        known = customers.filter(pc.less_equal(customers[EVENT_TIMESTAMP], moment(start)))[CUSTOMER_ID].unique()
        self._known = known.combine_chunks() if isinstance(known, pa.ChunkedArray) else known
        self.customers = np.sort(self.truth.rows_of(known.to_pylist()))
        """Those known at the start, as positions in the truth; later ones are none of the loop's, nor in its tables."""
        held = held_before(self._bank.tables[Table.HOLDINGS], self.truth, everyone, then)
        self._ownership = Ownership(self._random, self.truth, held, then)
        self._messages = Messages.of(self._until(Table.TIMELINE, start), self.truth)
        self._opted_out = self._refusals(start)
        self._counters = Counters()
        catalog = self._bank.catalog
        self.outbox = Outbox(
            {
                "customer": self.truth.customer_ids,
                "channel": catalog.channel_ids,
                "purpose": PURPOSES,
                "product": catalog.product_ids,
                "content": self.truth.content_ids,
            }
        )

    def held(self, customer: Int64) -> Bool:
        """Bool [n, P]: what these customers hold now."""
        return np.asarray(self._ownership.held[customer])

    def tired(self, customer: Int64) -> Float64:
        """Float64 [n]: how many marketing messages each had before now, older ones counting less."""
        return self._messages.tired(self.truth, customer, np.full(len(customer), self.now))

    def over_caps(self) -> int:
        """Messages of the loop that are too many under a cap of the catalogue, counted from what really left.

        What failed was no contact, and does not count.
        """
        found, sent = 0, self._messages
        for policy in CAPS:
            of_cap = ~sent.failed
            if "channel" in policy:
                of_cap = of_cap & (sent.channel == self.truth.channel_ids.index(policy["channel"]))
            owner, at = sent.customer[of_cap], sent.at[of_cap]
            order = np.lexsort((at, owner))
            owner, at, most = owner[order], at[order], policy["limit"]
            same = owner[most:] == owner[:-most]
            found += int((same & (at[most:] - at[:-most] < policy["days"] * DAY) & (at[most:] >= self.start)).sum())
        return found

    def send(self, customer: Int64, actions: Numbers, decision_ids: Sequence[str]) -> None:
        """Messages to n customers leave now; what follows waits in the outbox and in what they will hold."""
        n = len(customer)
        at = np.full(n, self.now)
        outcome = self.truth.outcome(
            customer, actions.product, actions.channel, actions.content, at, self.tired(customer), self.held(customer)
        )
        decision = len(self.outbox.decisions) + np.arange(n)
        self.outbox.decisions += decision_ids
        reactions = react(self._random, self.truth, customer, actions.channel, outcome, at)
        columns = {
            "channel": actions.channel, "purpose": np.full(n, PURPOSES.index(Purpose.MARKETING)),
            "product": actions.product, "content": actions.content, "decision": decision,
        }  # fmt: skip
        for event in reactions.happenings():
            named = columns if event.of_message else {"channel": actions.channel}
            if event.everywhere is not None:
                named = {**named, "channel": np.where(event.everywhere, -1, actions.channel)}
            chosen = {name: values[event.rows] for name, values in named.items()}
            self.outbox.add(event.kind, event.at[event.rows], customer[event.rows], **chosen)
        self._messages = self._messages.with_more(
            Messages(customer, reactions.sent_at, actions.channel, ~reactions.reached)
        )
        self._opted_out[customer[reactions.opt_out], actions.channel[reactions.opt_out]] = True
        self._opted_out[customer[reactions.opt_out_all]] = True
        done = reactions.responded
        reason = np.stack([decision, decision, actions.channel, actions.content])[:, done]
        self._ownership.expect(customer[done], actions.product[done], reactions.responds_at[done], reason)

    def live(self, days: float, between_decisions: Int64, interval_days: float) -> None:
        """Time passes: take-ups, visits, calls, service messages.

        between_decisions: customers who may consent again before their next decision, `interval_days` from now.
        """
        n = len(self.truth.customer_ids)
        begin, finish = np.full(n, self.now), np.full(n, self.now + days * DAY)
        known = np.zeros(n, dtype=np.bool_)
        known[self.customers] = True
        month = month_of(begin, self.truth.month_starts)
        address = self.truth.address[month, np.arange(n)] & known[:, None]
        finish_known = np.where(known, finish, begin)  # nothing happens to those whom the bank does not know yet
        log_conversions(self._random, self.outbox, self._ownership.advance(begin, finish_known))
        inbound(self._random, self.outbox, self.truth, address[:, IN_APP], begin, finish_known)
        service(self._random, self.outbox, address, begin, finish_known, self._counters)
        until = begin.copy()
        until[between_decisions] += interval_days * DAY
        self._opted_out[opt_in(self._random, self.outbox, self._opted_out, begin, until)] = False
        self.now += days * DAY

    def write(self, folder: Path, policies: str) -> None:
        """The bank's tables as of now: its own timeline ends at the start, what came later only the service knows."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "catalog.toml").write_text(self._catalog_file + policies, encoding="utf-8")
        for table, when in (
            (Table.CUSTOMERS, self.now),
            (Table.TRANSACTIONS, self.now),
            (Table.TIMELINE, self.start),
        ):
            pq.write_table(self._until(table, when), folder / f"{table}.parquet")
        customer, product, at, opened = self._ownership.log(self.now)
        later = at > self.start
        changes = holdings_table(
            (customer[later], product[later], at[later], opened[later]), pa.array(self.truth.customer_ids)
        )
        before = self._until(Table.HOLDINGS, self.start)
        plain = changes.cast(pa.schema([before.schema.field(name) for name in changes.column_names]))
        pq.write_table(pa.concat_tables([before.select(changes.column_names), plain]), folder / "holdings.parquet")

    def _until(self, table: Table, when: float) -> pa.Table:
        rows = self._bank.tables[table]
        rows = rows.filter(pc.less_equal(rows[EVENT_TIMESTAMP], moment(when)))
        return rows.filter(pc.is_in(rows[CUSTOMER_ID], self._known))

    def _refusals(self, when: float) -> Bool:
        """Bool [N, H]: channels on which marketing is refused, by the history."""
        channels = self._bank.catalog.channel_ids
        refused = np.zeros((len(self.truth.customer_ids), len(channels)), dtype=np.bool_)
        table = self._until(Table.TIMELINE, when)
        said = table.filter(pc.is_in(table[Event.KIND], pa.array([str(Kind.OPTED_OUT), str(Kind.OPTED_IN)])))
        rows = self.truth.rows_of(said[CUSTOMER_ID].to_pylist())
        for customer, kind, channel in zip(
            rows, said[Event.KIND].to_pylist(), said[Event.CHANNEL].to_pylist(), strict=True
        ):  # in order of time
            where = slice(None) if channel is None else channels.index(channel)
            refused[customer, where] = kind == Kind.OPTED_OUT
        return refused
