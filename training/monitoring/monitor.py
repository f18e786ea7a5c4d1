"""Monitoring: are the served decisions still those that the champion was judged for? Read from the ledger alone.

    read      the newest decisions, and every event of the ledger beside the bank's tables (nothing is written)
    compare   the rows they were made on, and the champion's scores of them, with the champion's reference  → drift
    judge     contacts whose response window has closed with what was expected of them                     → decay
    count     arms, coverage of the catalogue, degraded answers, under-served customers

Drift looks at the decisions since a moment, one per customer, the newest, so that the rows are independent. Decay and
arms look at all decisions that were read, for outcomes take their time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from features.arbitration import read_declared
from features.assemble import row_schema
from features.columns import EVENT_TIMESTAMP, Event, Kind, Purpose, Table
from features.errors import InputError
from features.home import Build, Home
from features.importing import Bank, make_bank
from features.progress import SILENT, Progress
from features.times import micros
from serving.decision import rfc3339
from serving.eligibility import rankable
from serving.records import picked_records
from training.labels import DAY, last_fact, told_until
from training.monitoring import decay
from training.monitoring.arm_lift import ArmLift, arm_lift
from training.monitoring.coverage import Coverage, coverage
from training.monitoring.decay import Decay
from training.monitoring.drift import SCORE, Drift
from training.monitoring.reference import BEST_SCORE, Reference
from training.monitoring.served_log import Decided, decided, in_order, newest_of_each, rows_of
from training.monitoring.underserved import Underserved, tail_of, underserved
from training.monitoring.watched import Watched, champions, drift_of, scores_of
from training.plan import NEXT_BEST_PRODUCT

if TYPE_CHECKING:
    from serving.settings import Settings

SINCE = timedelta(days=30)
"""How far back "now" reaches, unless told."""


@dataclass(frozen=True)
class Asked:
    """since: where "now" begins; None: SINCE before the newest decision. most: decisions that are read, the newest.

    horizon_days: for products without a response window of their own, and of the arms. smallest_lift: see `arm_lift`.
    """

    since: datetime | None = None
    most: int = 10_000
    horizon_days: float = 30.0
    smallest_lift: float = 0.1


@dataclass(frozen=True)
class Monitored:
    """What was found. since, until: of "now". decisions, customers: in it; read: decisions in all.

    drift: model → columns and scores, most drifted first. not_compared: what → why it was not.
    degraded: reason → decisions since then.
    """

    since: datetime
    until: datetime
    decisions: int
    customers: int
    read: int
    versions: Mapping[str, str]
    references: Mapping[str, Reference]
    drift: Mapping[str, Sequence[Drift]]
    not_compared: Mapping[str, str]
    decay: Sequence[Decay]
    arms: ArmLift
    coverage: Sequence[Coverage]
    degraded: Mapping[str, int]
    degraded_decisions: int
    underserved: Underserved

    @property
    def alarms(self) -> list[str]:
        """In words, what has drifted or decayed; empty: nothing has."""
        found = [
            f"calibration of {kind.what}, {'all weeks' if one is kind.whole else f'week of {one.name}'}: "
            f"{one.observed} take-ups where {one.expected:.1f} were expected, ratio {one.value:.2f} "
            f"[{one.low:.2f}, {one.high:.2f}]"
            for kind in self.decay
            for one in kind.alarms
        ]
        return found + [
            f"{worst.what} '{worst.name}' has drifted ({' and '.join(models)}): PSI {worst.psi:.2f}; {worst.most_moved}"
            for worst, models in self.drifted
        ]

    @property
    def drifted(self) -> list[tuple[Drift, list[str]]]:
        """Every column and score that has drifted, once, with the models that read it; scores first, then the worst."""
        by_name: dict[tuple[str, str], list[tuple[Drift, str]]] = {}
        for model, columns in self.drift.items():
            for one in columns:
                if one.drifted:
                    by_name.setdefault((one.what, one.name), []).append((one, model))
        worst = [
            (max((one for one, _ in found), key=lambda one: one.psi), [model for _, model in found])
            for found in by_name.values()
        ]
        return sorted(worst, key=lambda one: (one[0].what != SCORE, -one[0].psi))


def monitor(
    build: Build, settings: Settings, served: pa.Table | None, asked: Asked, progress: Progress = SILENT
) -> Monitored:
    """Everything at once. served: events of the ledger. InputError where it holds no marketing decision."""
    ids = newest_ids(served, asked.most)
    with progress.step(f"read {len(ids):,} decisions"):
        found = in_order(picked_records(settings.ledger_url, Home(settings.home).ledger_path, ids, decided))
    if not found:
        raise InputError(
            "monitoring needs served marketing decisions, however the ledger has none yet; serve some with "
            "`nextbest serve`"
        )
    until = found[-1].at
    since = until - SINCE // timedelta(microseconds=1) if asked.since is None else micros(asked.since)
    recent = [one for one in found if one.at >= since]
    if not recent:
        raise InputError(f"--since must lie before the newest decision, {_time(until)}, however it is {_time(since)}")
    with progress.step("join the ledger's events to the tables"):
        bank = joined(build.bank, served)
    with progress.step("compare rows and scores"):
        watched, missing = champions(settings.tracking_uri)
        newest = newest_of_each(recent)
        drift, unreadable = drift_of(recent, build, watched)
        missed = who_is_missed(newest, build, watched.get(NEXT_BEST_PRODUCT))
    end, window = last_fact(bank), round(asked.horizon_days * DAY)
    with progress.step("judge what became of them"):
        told = told_until(bank, end)
        lift = arm_lift(found, bank, read_declared(bank.catalog).arms, told, window, asked.smallest_lift)
        learned = watched.get(NEXT_BEST_PRODUCT)
        horizon = window if learned is None else round(learned.model.question.horizon_days * DAY)
        decayed = (decay.of_products(found, bank, told, horizon), decay.of_contacts(found, bank, end, window))
    reasons = Counter(reason for one in recent for reason in one.degraded)
    return Monitored(
        since=datetime.fromtimestamp(since / 1e6, UTC),
        until=datetime.fromtimestamp(until / 1e6, UTC),
        decisions=len(recent),
        customers=len(newest),
        read=len(found),
        versions={name: one.version for name, one in watched.items()},
        references={name: one.reference for name, one in watched.items()},
        drift=drift,
        not_compared={**missing, **unreadable},
        decay=decayed,
        arms=lift,
        coverage=coverage(recent, bank.catalog),
        degraded=dict(reasons.most_common()),
        degraded_decisions=sum(bool(one.degraded) for one in recent),
        underserved=missed,
    )


def newest_ids(served: pa.Table | None, most: int) -> list[str]:
    """Ids of the newest marketing decisions of the ledger's timeline."""
    if served is None:
        return []
    frame = served.select([Event.DECISION_ID, Event.KIND, Event.PURPOSE, EVENT_TIMESTAMP]).to_pandas()
    frame = frame[(frame[Event.KIND] == Kind.DECIDED) & (frame[Event.PURPOSE] == Purpose.MARKETING)]
    newest = frame.sort_values([EVENT_TIMESTAMP, Event.DECISION_ID], kind="stable").tail(most)
    return [str(name) for name in newest[Event.DECISION_ID]]


def joined(bank: Bank, served: pa.Table | None) -> Bank:
    """The tables as they were imported, with all that the ledger holds by now."""
    tables = {**bank.tables, Table.TIMELINE: bank.own_timeline}
    return make_bank(bank.catalog, tables, bank.attributes, served)


def who_is_missed(newest: Sequence[Decided], build: Build, watched: Watched | None) -> Underserved:
    """Under-served customers by layer; without a champion nothing counts as unlikely."""
    schema = row_schema(build.bank) if watched is None else watched.model.row_schema
    served = rows_of(newest, build.views, schema)
    if watched is None:
        scores = np.where(rankable(served.rows, build.catalog, [None] * len(served.rows)), 1.0, np.nan)
        threshold = 0.0
    else:
        scores = scores_of(watched.model, served.rows, build)
        threshold = next((tail_of(one) for one in watched.reference.scores if one.name == BEST_SCORE), 0.0)
    readable = [newest[place] for place in served.of.tolist()]
    return underserved(readable, scores, served.rows, build.catalog, threshold)


def _time(at: int) -> str:
    return rfc3339(datetime.fromtimestamp(at / 1e6, UTC))
