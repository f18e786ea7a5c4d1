"""Whatever the order in which events arrive, how often, and in which company: the ledger comes to know the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.catalog import Catalog, Channel, Product
from features.live import Live
from features.packing import unknown
from features.times import micros
from features.views import views
from serving.caps import Contact
from serving.decision import Action, Ask, Candidate, Decision, Versions
from serving.entries import Entry
from serving.events import TimelineEvent
from serving.history import groups_of
from serving.ledger import Ledger, SqliteLedger
from serving.postgres import PostgresLedger
from serving.timeline import Timeline

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
CATALOG = Catalog(
    "EUR",
    "Europe/Berlin",
    (Product("card", "Card", group="cards"), Product("loan", "Loan")),
    (Channel("push", "Push"), Channel("email", "E-mail"), Channel("app", "App", "both")),
)
LIVE = Live(CATALOG)
NOBODY = {view.name: unknown(view, 1) for view in views(CATALOG, ())}
CUSTOMERS = ("anna", "bert")
DECISIONS = ("d1", "d2")
"""Of each customer: one that is recorded here, and one that was made elsewhere."""
KINDS = (
    *("decided", "sent", "sent", "delivered", "failed", "failed", "opened", "clicked", "replied", "visited", "called"),
    *("converted", "opted_out", "opted_in", "complained"),
)


def maybe(*values: str) -> st.SearchStrategy[str | None]:
    return st.sampled_from((None, *values))


HAPPENINGS = st.lists(
    st.builds(
        TimelineEvent,
        event_id=st.just(""),
        customer_id=st.sampled_from(CUSTOMERS),
        at_us=st.integers(0, 40).map(lambda hours: micros(NOW - timedelta(hours=hours))),  # many at one time
        kind=st.sampled_from(KINDS),
        channel=maybe("push", "email", "app"),
        purpose=maybe("marketing", "service"),
        product_id=maybe("card", "loan"),
        decision_id=maybe(*DECISIONS),
        message_id=maybe("m1", "m2", "m3"),
        created_us=st.just(micros(NOW)),
    ),
    min_size=1,
    max_size=24,
)


@dataclass
class Arrivals:
    """One ledger for all examples, each of which has customers, events and decisions of its own."""

    ledger: Ledger
    numbers: Iterator[int]

    def known(self, batches: list[list[TimelineEvent]]) -> list[dict[str, Any]]:
        """What the ledger knows of each customer after these batches of events."""
        name = f"-{next(self.numbers)}"
        for who in CUSTOMERS:
            self._reserve(who, name)
        for batch in batches:
            self.ledger.append([_renamed(event, name) for event in batch])
        return [self._of(who, name) for who in CUSTOMERS]

    def _reserve(self, who: str, name: str) -> None:
        decision_id = f"{DECISIONS[0]}-{who}{name}"
        action = Action("card", "push", None, None)
        candidates, versions = (Candidate(action, 1.0),), Versions({}, "p", "f", "c")
        as_of = NOW - timedelta(days=1)
        decision = Decision(
            decision_id, Ask(who + name, as_of), action, 0.5, 1.0, candidates, (0.5,), (), (), (), 0, (), versions
        )
        contact = Contact(
            who + name, micros(as_of), "push", "card", "cards", "marketing", decision_id, micros(NOW) + 10
        )
        self.ledger.record(Entry.of(decision, as_of, b"a", contact=contact))

    def _of(self, who: str, name: str) -> dict[str, Any]:
        customer, now = who + name, micros(NOW)
        known = self.ledger.known(customer, 0, now)
        page = Timeline(self.ledger, CATALOG).page(customer, NOW, None, 500)
        plain = [str(contact).replace(name, "") for contact in sorted(known.contacts, key=str)]
        return {
            "timeline": [str(replace(event, created_us=0)).replace(name, "") for event in page.events],
            "consent": page.consent,
            "contacts": plain,
            "responses": [str(response).replace(name, "") for response in known.responses],
            "states": LIVE.merged(NOBODY, [known.live]),
        }


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arrivals]:
    ledger = SqliteLedger(tmp_path_factory.mktemp("order") / "ledger.db", LIVE.add, groups_of(CATALOG))
    yield Arrivals(ledger, itertools.count())
    ledger.close()


@pytest.fixture(scope="module")
def postgres(postgres_server: Any) -> Iterator[Arrivals]:
    ledger = PostgresLedger(postgres_server.new_database(), LIVE.add, groups_of(CATALOG))
    yield Arrivals(ledger, itertools.count())
    ledger.close()


def shuffled(events: list[TimelineEvent], draw: Callable[[Any], Any]) -> list[list[TimelineEvent]]:
    """The events in another order, some of them twice, in batches of any size."""
    again = draw(st.lists(st.sampled_from(events), max_size=6))
    order = draw(st.permutations([*events, *again]))
    cuts = sorted(draw(st.sets(st.integers(1, len(order)), max_size=5)))
    return [order[since:until] for since, until in itertools.pairwise([0, *cuts, len(order)]) if since < until]


FEW, MANY = 25, 1_000


@pytest.mark.parametrize(
    "examples", [FEW, pytest.param(MANY, marks=(pytest.mark.proof, pytest.mark.timeout(7_200)), id="full")]
)
@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_the_order_of_arrival_duplicates_and_company_change_nothing(
    name: str, examples: int, request: pytest.FixtureRequest
) -> None:
    arrivals: Arrivals = request.getfixturevalue(name)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(HAPPENINGS, st.data())
    def holds(happened: list[TimelineEvent], data: Any) -> None:
        events = [replace(event, event_id=f"e{place}") for place, event in enumerate(happened)]
        in_time = arrivals.known([events])
        for one, other in zip(in_time, arrivals.known(shuffled(events, data.draw)), strict=True):
            assert_same(one, other)

    holds()


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("timeline", "consent", "contacts", "responses"):
        assert one[part] == other[part], part
    for view, state in one["states"].items():
        again = other["states"][view]
        np.testing.assert_array_equal(state.at, again.at, view)
        np.testing.assert_allclose(state.numbers, again.numbers, rtol=1e-9, atol=1e-12, err_msg=view)


def _renamed(event: TimelineEvent, name: str) -> TimelineEvent:
    """The event of another example: its customer, event, decision and message are others."""
    return replace(
        event,
        event_id=event.event_id + name,
        customer_id=event.customer_id + name,
        decision_id=event.decision_id and f"{event.decision_id}-{event.customer_id}{name}",
        message_id=event.message_id and event.message_id + name,
    )
