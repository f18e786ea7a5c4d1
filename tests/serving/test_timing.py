"""The timing model: known rates, known customers, and files that are not to be trusted."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from features.errors import ArtefactError
from features.habits import Habits
from serving.choice import MANIFEST, write_verified
from serving.timing import SLOTS, TIMING_FILE, Stage, TimingModel, slot_of

BERLIN = ZoneInfo("Europe/Berlin")


def make_model(strength: float = 10.0, pull: float = 1.0) -> TimingModel:
    """Two channels: push is noticed half as often in all hours but the first of the week; mail always alike."""
    noticed = np.full((2, SLOTS), 0.2)
    noticed[0, 0] = 0.4
    flat = np.full((2, SLOTS), 0.5)
    return TimingModel(
        channels=("push", "email"),
        time_zone="Europe/Berlin",
        delivered=Stage(np.array([0.5, 0.5]), flat, strength),
        noticed=Stage(np.array([0.2, 0.2]), noticed, strength, pull),
        answered=Stage(np.array([0.5, 0.5]), flat, strength),
        shares=np.full(8, 1 / 8),
        active=8.0,
        delays=np.array([600.0, 3600.0]),
        tried=np.full((2, SLOTS), 50.0),
    )


def customer(outcomes: tuple[float, ...] = (0, 0, 0, 0), part: int | None = None, times: float = 0.0) -> Habits:
    """One customer with this record on push (delivered, failed, noticed, answered), active in one part of the day."""
    known = Habits.none(1, 2)
    known.outcomes[0, 0] = outcomes
    if part is not None:
        known.parts[0, part] = times
    return known


def chances(model: TimingModel, habits: Habits, channel: int = 0, slot: int = 5, part: int = 0) -> list[float]:
    ask = (np.array([value]) for value in (channel, slot, part))
    return list(model.chances(*ask, habits)[0])


def test_a_customer_without_a_record_has_the_rates_of_all_customers() -> None:
    model = make_model()
    assert chances(model, customer()) == pytest.approx([0.5, 0.2, 0.5], abs=1e-15)
    assert chances(model, customer(), slot=0) == pytest.approx([0.5, 0.4, 0.5], abs=1e-15)


def test_a_record_moves_the_channel_by_its_posterior_odds_and_leaves_the_others() -> None:
    always = customer((10, 0, 10, 0))
    found = chances(make_model(strength=10.0), always)
    assert found[0] == pytest.approx((5 + 10) / 20)  # Beta around 0.5 worth 10, ten of ten
    assert found[1] == pytest.approx((2 + 10) / 20)
    assert found[2] == pytest.approx((5 + 0) / 20)
    assert chances(make_model(), always, channel=1) == pytest.approx([0.5, 0.2, 0.5])


def test_an_infinite_strength_forgets_the_customer_and_a_small_one_believes_them() -> None:
    always = customer((10, 0, 10, 0))
    assert chances(make_model(strength=1e12), always)[1] == pytest.approx(0.2, abs=1e-9)
    assert chances(make_model(strength=1e-6), always)[1] > 0.999


def test_hours_of_own_activity_raise_the_chance_to_be_noticed_there_and_lower_it_elsewhere() -> None:
    owl = customer(part=7, times=8.0)
    model = make_model(pull=1.0)
    lift = (8 / 8 + 8) / 16 / (1 / 8)
    odds = 0.25 * lift
    assert chances(model, owl, part=7)[1] == pytest.approx(odds / (1 + odds))
    assert chances(model, owl, part=0)[1] < 0.2
    assert chances(make_model(pull=0.0), owl, part=7)[1] == pytest.approx(0.2)


def test_a_slot_is_the_local_hour_of_the_week_through_both_changes_of_the_clock() -> None:
    monday = datetime(2024, 1, 1, tzinfo=BERLIN)
    assert slot_of(monday, BERLIN) == 0
    assert slot_of(datetime(2024, 1, 7, 22, 59, tzinfo=UTC), BERLIN) == SLOTS - 1
    spring = datetime(2024, 3, 31, 1, 0, tzinfo=UTC)  # 02:00 does not exist that Sunday
    assert [slot_of(spring.replace(hour=hour), BERLIN) - 144 for hour in (0, 1)] == [1, 3]
    autumn = datetime(2024, 10, 27, 0, 30, tzinfo=UTC)  # 02:30 comes twice that Sunday
    assert [slot_of(autumn.replace(hour=hour), BERLIN) - 144 for hour in (0, 1, 2)] == [2, 2, 3]


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path / "model")
    again = TimingModel.load(tmp_path / "model")
    assert again.channels == model.channels
    owl = customer((3, 1, 2, 1), part=7, times=4.0)
    assert chances(again, owl, part=7) == chances(model, owl, part=7)
    assert again.delays.tolist() == model.delays.tolist()


def test_a_changed_byte_is_refused_before_it_is_read(tmp_path: Path) -> None:
    make_model().save(tmp_path / "model")
    file = tmp_path / "model" / TIMING_FILE
    file.write_bytes(file.read_bytes().replace(b"0.4", b"0.9"))
    with pytest.raises(ArtefactError, match="SHA-256"):
        TimingModel.load(tmp_path / "model")
    (tmp_path / "model" / MANIFEST).unlink()
    with pytest.raises(ArtefactError, match=MANIFEST):
        TimingModel.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("channels", ["push"]),
        ("shares", [1.0] * 8),
        ("delays", [600.0, -1.0]),
        ("active", 0.0),
        ("tried", [1.0, 2.0]),
        ("time_zone", "Europe/Atlantis"),
        ("noticed", {"channels": [0.2, 1.0], "slots": [[0.2] * SLOTS] * 2, "strength": 1.0, "pull": 0.0}),
        ("answered", None),
    ],
)
def test_a_model_that_makes_no_sense_is_refused(tmp_path: Path, part: str, wrong: object) -> None:
    make_model().save(tmp_path / "model")
    raw = json.loads((tmp_path / "model" / TIMING_FILE).read_text()) | {part: wrong}
    write_verified(tmp_path / "bad", lambda draft: (draft / TIMING_FILE).write_text(json.dumps(raw)))
    with pytest.raises(ArtefactError, match="train again"):
        TimingModel.load(tmp_path / "bad")


def test_a_model_with_a_rate_that_is_no_number_cannot_be_saved(tmp_path: Path) -> None:
    broken = replace(make_model(), delays=np.array([np.nan, 1.0]))
    with pytest.raises(ValueError, match="JSON"):
        broken.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
