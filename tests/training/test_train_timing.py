"""From a bank's timeline to a registered model that serving loads."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from features.assemble import row_schema
from features.errors import ArtefactError
from features.home import Build, Home
from features.importing import write_bank
from features.views import views
from serving.canary import Canary
from serving.registry import TIMING_MODEL, resolve_timing
from serving.timing import TIMING_FILE
from training.attempts import attempts
from training.fit_timing import DECLARED, fit
from training.labels import DAY, ModelNotPossible
from training.track import MODEL_FOLDER, Tracking
from training.train_timing import train_timing

if TYPE_CHECKING:
    from conftest import World
else:
    World = Any

ZERO = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """One registry for all tests here: opening a new one takes seconds."""
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlruns') / 'mlflow.db'}")


@pytest.fixture
def build(tmp_path: Path, world: World) -> Callable[[], Build]:
    """What is in `world` as a feature build, without Feast, which is not read here."""

    def make() -> Build:
        bank = world.bank
        made = Build(Home(tmp_path / "home").builds / "small", "f" * 64, views(bank.catalog, ()), ZERO)
        made.folder.mkdir(parents=True)
        write_bank(bank, made.bank_folder)
        return made

    return make


def evenings(world: World, days: int) -> None:
    """Twice a day a message that is clicked in the evening only."""
    for number in range(days):
        customer = f"c{number % 5}"
        world.knows(**{customer: 0.0})
        for hour in (8, 20):
            name, day = f"m{number} {hour}", number + hour / 24
            world.event(customer, day, "sent", channel="sms", message_id=name)
            world.event(customer, day + 0.001, "delivered", channel="sms", message_id=name)
            if hour == 20:
                world.event(customer, day + 0.01, "clicked", channel="sms", message_id=name)


def test_a_registered_model_is_what_serving_loads(world: World, build: Callable[[], Build], tracking: Tracking) -> None:
    evenings(world, 140)
    made = build()
    trained = train_timing(made, tracking, {})
    assert trained.model == "send-time"
    assert trained.metrics["test/noticed_log_loss_minus_constant_high"] < 0
    assert trained.metrics["test/noticed_log_loss_minus_by_channel_high"] < 0
    model, version = resolve_timing("champion", tracking.uri)
    assert version == trained.version
    sms = model.channels.index("sms")
    assert int(np.argmax(model.noticed.slots[sms][:24])) == 20
    assert model.noticed.slots[sms, 20] > 0.9 > 0.1 > model.noticed.slots[sms, 8]


def test_a_damaged_model_is_refused_with_the_reason(
    world: World, build: Callable[[], Build], tracking: Tracking
) -> None:
    evenings(world, 30)
    run = train_timing(build(), tracking, {}).run_id
    file = next(Path(tracking.uri.removeprefix("sqlite:///")).parent.rglob(f"{run}/**/{MODEL_FOLDER}/{TIMING_FILE}"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match="SHA-256"):
        resolve_timing("champion", tracking.uri)


def test_few_messages_are_smoothed_as_declared_and_say_so(
    world: World, build: Callable[[], Build], tracking: Tracking
) -> None:
    evenings(world, 30)
    trained = train_timing(build(), tracking, {})
    assert (trained.metrics, trained.families) == ({}, {})
    assert "too few" in trained.notes[0]
    model, _ = resolve_timing("champion", tracking.uri)
    assert model.noticed.strength == DECLARED.customer[1]


def test_a_timeline_without_receipts_registers_nothing(
    world: World, build: Callable[[], Build], tracking: Tracking
) -> None:
    world.knows(ann=0.0).event("ann", 1.0, "sent", channel="sms").event("ann", 30.0, "visited", channel="app")
    with pytest.raises(ModelNotPossible, match="receipts"):
        train_timing(build(), tracking, {"world": "silent"})
    assert tracking.client.search_runs([tracking.experiment("send-time")], "tags.world = 'silent'") == []


def test_what_comes_after_until_is_not_learned_from(
    world: World, build: Callable[[], Build], tracking: Tracking, tmp_path: Path
) -> None:
    evenings(world, 30)
    until = ZERO + timedelta(days=25)
    calm = train_timing(build(), tracking, {}, until)
    first, _ = resolve_timing(calm.version, tracking.uri)
    for number in range(40):
        world.event("c1", 31.5 + number, "sent", channel="app", message_id=f"later {number}")
        world.event("c1", 31.6 + number, "clicked", channel="app", message_id=f"later {number}")
        world.event("c1", 25.5, "clicked", channel="sms", message_id=f"m{18 + number % 7} 8")
    told = Build(tmp_path / "told", "e" * 64, views(world.bank.catalog, ()), ZERO)
    told.folder.mkdir()
    write_bank(world.bank, told.bank_folder)
    second, _ = resolve_timing(train_timing(told, tracking, {}, until).version, tracking.uri)
    np.testing.assert_array_equal(first.noticed.slots, second.noticed.slots)
    np.testing.assert_array_equal(first.delivered.slots, second.delivered.slots)
    np.testing.assert_array_equal(first.delays, second.delays)


def test_a_model_of_other_channels_or_of_another_zone_is_not_used(world: World, day: Callable[[float], int]) -> None:
    evenings(world, 30)
    bank = world.bank
    learned = attempts(bank, day(31.0), 7 * DAY)
    canary = Canary(row_schema(bank), {}, np.empty(0))
    for channels, zone in ((("app", "web", "fax"), "UTC"), (bank.catalog.channel_ids, "Asia/Shanghai")):
        with pytest.raises(ArtefactError, match="other channels or another time zone"):
            canary.answer(TIMING_MODEL, fit(learned, channels, zone, DECLARED))
    usable = canary.answer(TIMING_MODEL, fit(learned, bank.catalog.channel_ids, "UTC", DECLARED))
    assert ((usable > 0) & (usable < 1)).all()
