"""The closed loop in small: a bank's tables, decisions and events through the ledger, built again, and learned from."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.build import build_features
from features.columns import Table
from features.home import Build, Home
from features.times import micros
from serving.decision import Action, Ask, Candidate, Decision, Reason, Versions
from serving.entries import Entry
from serving.events import TimelineEvent
from serving.export import served_events
from serving.ledger import SqliteLedger
from serving.registry import resolve
from training.outcomes import FAILED, NEVER_SENT, OPEN
from training.plan import NEXT_BEST_PRODUCT, Order, make_plan
from training.provenance import label_table
from training.track import Tracking
from training.train import Trained, train

WINDOW_DAYS = 7
PROPENSITY = 0.2
STORIES = ("answered", "not answered", "failed", "suppressed", "too new", "late", "without a name")
EACH = 15


@dataclass(frozen=True)
class Bank:
    folder: Path
    home: Home
    customers: tuple[str, ...]
    product: str
    channel: str
    end: datetime


def served(decision_id: str, customer_id: str, as_of: datetime, action: Action) -> Decision:
    """A decision as the service records it."""
    return Decision(
        decision_id=decision_id,
        ask=Ask(customer_id, as_of),
        action=action,
        propensity=PROPENSITY,
        value=1.0,
        candidates=(Candidate(action, 1.0),),
        propensities=(PROPENSITY,),
        removed=(),
        reasons=(Reason("explored", "to learn"),),
        degraded=(),
        dropped=0,
        fallback_channels=(),
        versions=Versions({}, "p", "f", "c"),
    )


@pytest.fixture(scope="module")
def bank(simulated_bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """The simulated bank, whose products may be answered for a week."""
    folder = tmp_path_factory.mktemp("loop")
    shutil.copytree(simulated_bank, folder / "bank")
    catalog = folder / "bank" / "catalog.toml"
    declared = catalog.read_text("utf-8").replace("[[products]]\n", f"[[products]]\nresponse_days = {WINDOW_DAYS}\n")
    catalog.write_text(declared, "utf-8")
    home = Home(folder / "home")
    build = build_features(folder / "bank", home)
    customers = pc.unique(build.bank.tables[Table.CUSTOMERS]["customer_id"]).to_pylist()
    product = next(one.id for one in build.catalog.products if not one.holdable)
    channel = next(one.id for one in build.catalog.channels if one.outbound)
    return Bank(folder / "bank", home, tuple(sorted(customers)), product, channel, build.data_end)


def story_of(bank: Bank, decision_id: str) -> str:
    return STORIES[int(decision_id.removeprefix("d")) % len(STORIES)]


def tell(bank: Bank, ledger: SqliteLedger, number: int) -> None:
    """One decision and what follows it, as far as it arrives in time."""
    story, customer = STORIES[number % len(STORIES)], bank.customers[number]
    day = bank.end + timedelta(days=10 if story == "too new" else 1, minutes=number)
    name = f"d{number}"
    action = Action(bank.product, bank.channel, None, "…")
    ledger.record(Entry.of(served(name, customer, day, action), day, b"{}"))
    if story == "suppressed":
        return
    arrival = "failed" if story == "failed" else "delivered"
    events = [event(bank, name, customer, kind, day) for kind in ("sent", arrival)]
    if story == "answered":
        events.append(event(bank, name, customer, "converted", day + timedelta(days=2)))
    if story == "without a name":
        anonymous = event(bank, name, customer, "converted", day + timedelta(days=3))
        events.append(TimelineEvent(**{**vars(anonymous), "decision_id": None, "channel": None}))
    assert set(ledger.append(events)) == {"accepted"}


def event(bank: Bank, decision: str, customer: str, kind: str, at: datetime, late_days: float = 0) -> TimelineEvent:
    return TimelineEvent(
        event_id=f"{kind}:{decision}",
        customer_id=customer,
        at_us=micros(at),
        kind=kind,
        channel=bank.channel,
        purpose="marketing",
        product_id=bank.product,
        decision_id=decision,
        message_id=None if kind == "converted" else f"m{decision}",
        created_us=micros(at + timedelta(days=late_days)),
    )


@pytest.fixture(scope="module")
def builds(bank: Bank) -> tuple[Build, Build]:
    """Built while the ledger is open; and again when the late positives have arrived."""
    ledger = SqliteLedger(bank.home.ledger_path)
    for number in range(EACH * len(STORIES)):
        tell(bank, ledger, number)
    ledger.append([event(bank, "none", bank.customers[0], "visited", bank.end + timedelta(days=12))])
    first = build_features(bank.folder, bank.home, served=served_events("", bank.home.ledger_path))
    late = STORIES.index("late")
    for number in range(late, EACH * len(STORIES), len(STORIES)):
        taken_at = bank.end + timedelta(days=5)
        ledger.append([event(bank, f"d{number}", bank.customers[number], "converted", taken_at, late_days=9)])
    second = build_features(bank.folder, bank.home, served=served_events("", bank.home.ledger_path))
    ledger.close()
    return first, second


@pytest.fixture(scope="module")
def trained(builds: tuple[Build, Build], tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Tracking]:
    tracking = Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns') / 'mlflow.db'}")
    return train(Order(NEXT_BEST_PRODUCT, "prior", horizon_days=14.0), builds[1], tracking, {}), tracking


def told(bank: Bank, lines: list[dict[str, Any]]) -> dict[str, set[Any]]:
    """Story → what its decisions are labelled, or why they are no rows."""
    found: dict[str, set[Any]] = {story: set() for story in STORIES}
    for line in lines:
        found[story_of(bank, line["decision_id"])].add(line["left_out"] if line["label"] is None else line["label"])
    return found


def test_before_the_late_positives_arrive_they_are_refusals(bank: Bank, builds: tuple[Build, Build]) -> None:
    plan, known = make_plan(Order(NEXT_BEST_PRODUCT, horizon_days=14.0), builds[0].bank)
    outcomes = plan.outcomes(known, plan.end)
    assert outcomes is not None
    assert told(bank, label_table(outcomes, known.catalog.product_ids).to_pylist()) == {
        "answered": {True},
        "not answered": {False},
        "failed": {FAILED},
        "suppressed": {NEVER_SENT},
        "too new": {OPEN},
        "late": {False},
        "without a name": {True},
    }


def test_the_run_keeps_the_labels_it_learned_from_and_their_propensities(
    bank: Bank, trained: tuple[Trained, Tracking], tmp_path: Path
) -> None:
    run, tracking = trained
    tracking.client.download_artifacts(run.run_id, "labels", str(tmp_path))
    lines = pq.read_table(tmp_path / "labels" / "labels.parquet").to_pylist()
    assert told(bank, lines)["late"] == {True}
    assert {story_of(bank, line["decision_id"]) for line in lines if line["corrected"]} == {"late"}
    assert len(lines) == EACH * len(STORIES), "only what was served: the bank's own log has rows of other sorts"
    assert {line["propensity"] for line in lines} == {PROPENSITY}
    assert {line["attribution"] for line in lines} == {"last-touch-1"}
    params = tracking.client.get_run(run.run_id).data.params
    counts = {name: params[name] for name in params if name.startswith("decisions")}
    assert counts == {
        "decisions": str(7 * EACH),
        "decisions_labelled": str(4 * EACH),
        "decisions_taken": str(3 * EACH),
        "decisions_corrected": str(EACH),
    }
    assert params["attribution"] == "last-touch-1"


def test_the_rows_of_served_decisions_are_learned_from(
    bank: Bank, builds: tuple[Build, Build], trained: tuple[Trained, Tracking]
) -> None:
    plan, known = make_plan(Order(NEXT_BEST_PRODUCT, horizon_days=14.0), builds[1].bank)
    spine = plan.spine(known, plan.end)
    rows = spine.take(spine.sort == "decision")
    place = known.catalog.product_ids.index(bank.product)
    assert len(rows) == 4 * EACH
    assert rows.taken[:, place].sum() == 3 * EACH
    assert rows.offered.sum() == rows.offered[:, place].sum() == len(rows)
    assert (rows.closes - rows.as_of == WINDOW_DAYS * 86_400_000_000 + 1).all()
    run, tracking = trained
    assert run.rows["all"] >= 4 * EACH
    with_loop = resolve(NEXT_BEST_PRODUCT, run.version, tracking.uri).model.scorer
    alone = train(Order(NEXT_BEST_PRODUCT, "prior", horizon_days=14.0), bank_alone(bank), tracking, {})
    without = resolve(NEXT_BEST_PRODUCT, alone.version, tracking.uri).model.scorer
    assert alone.rows["all"] < run.rows["all"]
    gain = [scorer.prior[place] - scorer.prior[-1] for scorer in (with_loop, without)]
    assert gain[0] > gain[1], "three of four took the product that they were offered"


def bank_alone(bank: Bank) -> Build:
    return build_features(bank.folder, bank.home)


def test_live_and_built_again_count_no_event_twice(bank: Bank, builds: tuple[Build, Build]) -> None:
    ids = builds[1].bank.tables[Table.TIMELINE]["event_id"].to_numpy()
    assert len(np.unique(ids)) == len(ids)
    again = build_features(bank.folder, bank.home, served=served_events("", bank.home.ledger_path))
    assert again == builds[1]
