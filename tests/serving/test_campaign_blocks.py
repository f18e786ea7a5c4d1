"""A campaign's blocks: the plan of one process that nothing interrupts, whatever happens on the way."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.catalog import Catalog, Channel, Product
from features.errors import ArtefactError, InputError
from features.schema import Float64
from serving.batch import write_scores
from serving.campaign import Campaign, plan_campaign, plan_parts
from serving.campaign_blocks import valued
from serving.campaign_parts import Terms, Worths, joined, part_of

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
SHOP = Catalog(
    "EUR",
    "UTC",
    (Product("card", "Card", margin=10.0), Product("loan", "Loan", margin=10.0)),
    (Channel("sms", "SMS", cost=1.0, capacity=4), Channel("app", "App", cost=0.0, capacity=90)),
)
WHO = [f"c{number * 37 % 100:02d}" for number in range(50)]
TERMS = Terms(days=2, contacts=2, budget=5.0)
BLOCK = 6
BLOCKS = 9
APP = np.array([[False, True], [False, True]])


def entities(customers: list[str] = WHO) -> pd.DataFrame:
    times = pd.Series([NOW] * len(customers)).astype("datetime64[us, UTC]")
    return pd.DataFrame({"customer_id": pd.Series(customers, dtype=object), "as_of": times})


def block_of(part: pd.DataFrame) -> Worths:
    """A contact's worth is drawn by the customer's number; a cap leaves every third customer no contact by app."""
    numbers = [int(name[1:]) for name in part["customer_id"]]
    value: Float64 = np.array([np.random.default_rng(number).gamma(1.0, 5.0, (2, 2)) for number in numbers])
    value[np.array(numbers) % 7 == 0, 0] = np.nan
    return Worths(value, (("cap", APP, np.array(numbers) % 3),))


@dataclass
class Shop:
    """Values blocks, each in `seconds`, counts them, and fails from call `fails` on, elsewhere if `fails_elsewhere`."""

    known_by: str = "models"
    fails: int = 1_000
    fails_elsewhere: bool = False
    catalog: Catalog = SHOP
    unit: str = "EUR"
    seconds: float = 0.0
    asked: int = 0

    def worths(self, part: pd.DataFrame) -> Worths:
        self.asked += 1
        if self.asked >= self.fails:
            raise RuntimeError("half-way")
        time.sleep(self.seconds)
        return block_of(part)

    def elsewhere(self) -> partial[Shop]:
        return partial(Shop, fails=1 if self.fails_elsewhere else 1_000)


def run(
    out: Path,
    shop: Shop | None = None,
    origin: str = "entities",
    terms: Terms = TERMS,
    processes: int = 1,
    who: list[str] = WHO,
) -> Campaign:
    """A plan, written where the command writes it."""
    asked = entities(who)
    with valued(lambda: shop or Shop(), asked, terms, out, origin, block=BLOCK, processes=processes) as kept:
        found = plan_parts(SHOP, kept.unit, asked, kept.order, kept, terms)
        write_scores(iter([found.plan]), out)
    return found


def interrupted(out: Path) -> None:
    """A run that ended after three blocks."""
    with pytest.raises(RuntimeError, match="half-way"):
        run(out, Shop(fails=4))
    assert not out.exists()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The plan of a run that nothing interrupted."""
    run(tmp_path / "whole" / "plan.parquet")
    return (tmp_path / "whole" / "plan.parquet").read_bytes()


def same(one: Campaign, other: Campaign) -> bool:
    pd.testing.assert_frame_equal(one.plan, other.plan, check_exact=True)
    return replace(one, plan=other.plan) == other


def test_the_plan_is_that_of_all_customers_in_one_block_in_the_order_of_the_file(tmp_path: Path) -> None:
    out = tmp_path / "plan.parquet"
    expected = plan_campaign(SHOP, "EUR", entities(), [block_of(entities())], TERMS)
    assert same(run(out), expected)
    assert sum(expected.messages.values()) > 50
    assert [path.name for path in tmp_path.iterdir()] == ["plan.parquet"]


def test_two_processes_make_the_plan_of_one_bit_by_bit(tmp_path: Path, whole: bytes) -> None:
    out, shop = tmp_path / "plan.parquet", Shop(seconds=0.1)
    run(out, shop, processes=2)
    assert out.read_bytes() == whole
    assert shop.asked < BLOCKS


def test_what_fails_in_another_process_is_told_here(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="half-way"):
        run(tmp_path / "plan.parquet", Shop(seconds=0.1, fails_elsewhere=True), processes=2)


def test_a_run_that_failed_leaves_no_plan_and_the_next_values_only_what_is_left(tmp_path: Path, whole: bytes) -> None:
    out, again = tmp_path / "plan.parquet", Shop()
    interrupted(out)
    run(out, again)
    assert again.asked == BLOCKS - 3
    assert out.read_bytes() == whole
    assert not list(tmp_path.glob(".plan*"))


@pytest.mark.parametrize(
    "other",
    [
        {"origin": "other entities"},
        {"shop": {"known_by": "other models, rules or features"}},
        {"terms": replace(TERMS, days=3)},
        {"terms": replace(TERMS, contacts=1)},
        {"terms": replace(TERMS, budget=None)},
        {"who": WHO[1:]},
    ],
)
def test_a_run_for_something_else_takes_nothing_up(tmp_path: Path, other: dict[str, Any]) -> None:
    out = tmp_path / "plan.parquet"
    interrupted(out)
    again = Shop(**other.pop("shop", {}))
    found = run(out, again, **other)
    assert again.asked == BLOCKS
    assert same(found, run(tmp_path / "new" / "plan.parquet", **other))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another block's"])
def test_a_damaged_part_is_valued_again(tmp_path: Path, whole: bytes, damage: str) -> None:
    out = tmp_path / "plan.parquet"
    interrupted(out)
    part = next(tmp_path.rglob("000001.npz"))
    content = part.read_bytes()
    middle = content.index(b"value.npy") + 200
    part.write_bytes(
        {
            "cut": content[:-100],
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
            "another block's": _part_of(WHO[: BLOCK - 1], tmp_path),
        }[damage]
    )
    again = Shop()
    run(out, again)
    assert again.asked == BLOCKS - 2
    assert out.read_bytes() == whole


def _part_of(who: list[str], folder: Path) -> bytes:
    part_of(SHOP, len(WHO), block_of(entities(who)), TERMS).save(folder / "other")
    return (folder / "other").read_bytes()


def test_a_part_that_is_damaged_after_the_valuing_is_never_planned_with(tmp_path: Path) -> None:
    out = tmp_path / "plan.parquet"
    with valued(Shop, entities(), TERMS, out, "entities", block=BLOCK, processes=1) as kept:
        kept.paths[2].write_bytes(kept.paths[2].read_bytes()[:-1])
        with pytest.raises(ArtefactError, match=r"000002\.npz"):
            plan_parts(SHOP, kept.unit, entities(), kept.order, kept, TERMS)


def test_parts_of_some_customers_only_are_no_campaign() -> None:
    part = part_of(SHOP, 50, block_of(entities(WHO[:6])), TERMS)
    with pytest.raises(ValueError, match="however they are of 6"):
        joined(SHOP, np.arange(50), [part], TERMS)


def test_a_channel_that_cannot_fill_up_in_a_block_may_in_the_campaign() -> None:
    block = Worths(np.full((3, 2, 2), [4.0, 5.0]))  # the app is better for everybody, and takes 90
    for customers, channels in ((91, {0, 1}), (90, {1})):
        assert set(part_of(SHOP, customers, block, Terms()).channel.tolist()) == channels


def test_two_runs_do_not_make_the_same_plan_at_once(tmp_path: Path) -> None:
    out = tmp_path / "plan.parquet"
    interrupted(out)
    with (tmp_path / ".plan.parquet.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another one does"):
            run(out)
    run(out)
    assert out.exists()


class Stuck(Shop):
    """Never comes to an end with the sixth block."""

    def worths(self, part: pd.DataFrame) -> Worths:
        if self.asked == 5:
            time.sleep(600)
        return super().worths(part)


def test_a_killed_run_is_taken_up_and_makes_the_same_plan(
    tmp_path: Path, whole: bytes, killed_after_five_parts: Callable[[str, Path], None]
) -> None:
    out, again = tmp_path / "plan.parquet", Shop()
    killed_after_five_parts("test_campaign_blocks", out)
    assert not out.exists()
    run(out, again)
    assert again.asked == BLOCKS - 5
    assert out.read_bytes() == whole
