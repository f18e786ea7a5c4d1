"""What one decision does, in counts that no machine changes: statements of SQL and calls of functions.

A benchmark says how long, and needs a quiet machine for it. That a decision does not do more where more is stored, and
that nobody adds a query to it unnoticed, is said here: on a bank with 120 actions, by a profiler that counts calls.
"""

from __future__ import annotations

import itertools
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from bank import ACTIONS, customer_ids, heavy_id, write_bank
from growth import AT_ONCE, events, fill
from served import home_of

from features.packed import OnlineStates
from serving import contract
from serving.decision import Decision
from serving.entries import Entry
from serving.intake import Intake
from serving.opening import Serving, open_serving
from serving.settings import Settings

NOW = datetime(2026, 1, 5, 4, tzinfo=UTC)
FEW, MANY = 20, 600
"""Events on a timeline."""
CUSTOMERS = 60
MOST_STATEMENTS = 10
"""Of SQL, for a decision and its record: 1 of the online store, its snapshot around it, what the ledger knows of the
customer, and what the record writes. Lower it when there are fewer."""
MOST_CALLS = 1_850
"""Of functions, for 120 actions. Lower it when there are fewer."""
MORE = 1.25
"""Other numbers take other branches, and contacts of the caps' days are counted; one call per event would be 1.35."""

NUMBERS = itertools.count()


class Profile:
    """Counts calls, of Python's functions and of others, in this thread and in those that start while it is set."""

    def __init__(self) -> None:
        self.counting = False
        self.calls = self.statements = 0

    def __call__(self, frame: FrameType, event: str, what: Any) -> None:
        if self.counting and event in ("call", "c_call"):
            self.calls += 1
            self.statements += event == "c_call" and what.__name__ in ("execute", "executemany")

    def of(self, work: Callable[[], object]) -> tuple[int, int]:
        """Calls and statements of `work`."""
        self.calls = self.statements = 0
        before = sys.getprofile()
        sys.setprofile(self)
        self.counting = True
        try:
            work()
        finally:
            self.counting = False
            sys.setprofile(before)
        return self.calls, self.statements


@dataclass(frozen=True)
class Bank:
    """A served bank, and what counts its calls."""

    serving: Serving
    profile: Profile
    folder: Path

    def decide(self, customer: str, serving: Serving | None = None) -> Decision:
        """Everything that POST /v1/decide does between the body and the answer's bytes."""
        serving = serving or self.serving
        wanted = contract.DecideRequest(customer_id=customer)
        # An id is what is drawn by: numbered, every run draws the same.
        decision = serving.decider.decide(wanted.ask(NOW), uuid.uuid5(uuid.NAMESPACE_OID, str(next(NUMBERS))).hex)
        serving.ledger.record(
            Entry.of(
                decision,
                NOW,
                b"{}",
                contact=decision.contact,
                caps=decision.caps,
                consent_version=decision.consent_version,
            )
        )
        return decision

    def counts(self, customer: str, serving: Serving | None = None) -> tuple[int, int]:
        """Calls and statements of one decision, once everything that is made only once has been made."""
        self.decide(customer, serving)
        return self.profile.of(lambda: self.decide(customer, serving))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    folder = tmp_path_factory.mktemp("counts")
    write_bank(folder / "bank", CUSTOMERS, heavy={FEW: 2, MANY: 2})
    home = home_of(folder / "bank", folder / "home")
    profile = Profile()
    threading.setprofile(profile)  # for the ledger's thread
    try:
        serving = open_serving(Settings(home.root, f"sqlite:///{folder / 'mlflow.db'}", reload_seconds=0))
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]  # typeshed lacks it
    yield Bank(serving, profile, folder)
    serving.ledger.close()


def test_a_decision_chooses_among_all_actions_of_the_benchmark(bank: Bank) -> None:
    decision = bank.decide(customer_ids(CUSTOMERS)[5])
    assert len(decision.candidates) == ACTIONS + 1


def test_a_decision_and_its_record_are_a_handful_of_statements_and_so_many_calls(bank: Bank) -> None:
    calls, statements = bank.counts(customer_ids(CUSTOMERS)[6])
    assert 0 < statements <= MOST_STATEMENTS
    assert calls <= MOST_CALLS


def test_a_decision_does_the_same_among_ten_times_as_many_customers(bank: Bank) -> None:
    decider, known = bank.serving.decider, customer_ids(CUSTOMERS)
    counts = []
    for size in (200, 2_000):
        path = bank.folder / f"online-{size}.db"
        fill(path, decider.customers.views, decider.customers, known, size)
        online = OnlineStates(path, decider.customers.views)
        serving = replace(bank.serving, decider=replace(decider, customers=online))
        counts.append(bank.counts("n00000007", serving))
    (few, asked), (many, asked_more) = counts
    assert asked_more == asked
    assert many <= MORE * few


def test_a_decision_does_no_more_for_an_imported_timeline_thirty_times_as_long(bank: Bank) -> None:
    (few, asked), (many, asked_more) = bank.counts(heavy_id(FEW, 0)), bank.counts(heavy_id(MANY, 0))
    assert asked_more == asked
    assert many <= MORE * few


def test_a_decision_does_no_more_for_a_timeline_of_the_ledger_thirty_times_as_long(bank: Bank) -> None:
    short, long = customer_ids(CUSTOMERS)[7:9]
    intake = Intake(bank.serving.ledger, bank.serving.decider.catalog, None)
    for customer, length in ((short, FEW), (long, MANY)):
        given = events(customer, length, NOW)
        for start in range(0, len(given), AT_ONCE):
            results = intake.take(given[start : start + AT_ONCE], NOW)
            assert {result.status for result in results} == {"accepted"}
    (few, asked), (many, asked_more) = bank.counts(short), bank.counts(long)
    assert asked_more == asked
    assert many <= MORE * few
