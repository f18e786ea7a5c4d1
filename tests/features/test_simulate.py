"""The simulated bank keeps its promises: the same bytes, exact propensities, reactions as the truth says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from features.errors import InputError
from features.progress import Advance
from features.quality import check
from features.simulate import simulate


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Killed(Exception):
    """Stands for a kill in the middle of the work."""


class KillsAt:
    """A progress that dies when a step of that name advances, or opens if it never does."""

    def __init__(self, step: str) -> None:
        self._step = step

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Advance]:
        def advance(done: int) -> None:
            if name == self._step:
                raise Killed

        yield advance
        advance(0)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    simulate(tmp_path / "bank", customers=60, months=2, seed=3)
    return tmp_path / "bank"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(small: Path, tmp_path: Path) -> None:
    simulate(tmp_path / "again", customers=60, months=2, seed=3)
    simulate(tmp_path / "other", customers=60, months=2, seed=4)
    first, again, other = (digests(tmp_path / name) for name in ("bank", "again", "other"))
    assert first == again
    assert set(first) == set(other)
    same = {name for name in first if first[name] == other[name]}
    assert same == {"catalog.toml", "truth/index.json"}


@pytest.mark.parametrize(("customers", "months"), [(1, 1), (7, 13), (60, 2)])
def test_a_bank_of_any_size_passes_every_check(tmp_path: Path, customers: int, months: int) -> None:
    simulate(tmp_path / "bank", customers, months, seed=1)
    assert list(check(tmp_path / "bank").problems) == []


def test_an_identical_bank_is_left_untouched(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    simulate(small, customers=60, months=2, seed=3)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_another_simulated_bank_is_replaced(small: Path, tmp_path: Path) -> None:
    simulate(small, customers=50, months=2, seed=3)
    simulate(tmp_path / "fresh", customers=50, months=2, seed=3)
    assert digests(small) == digests(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank", "fresh"]


def test_a_damaged_bank_is_made_anew(small: Path) -> None:
    whole = digests(small)
    (small / "timeline.parquet").write_bytes(b"PAR1")
    simulate(small, customers=60, months=2, seed=3)
    assert digests(small) == whole


def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "customers.parquet").write_text("my own bank")
    with pytest.raises(InputError, match=r"holds other files \(customers.parquet\); choose another folder"):
        simulate(folder, customers=5, months=1, seed=1)
    assert [path.name for path in folder.iterdir()] == ["customers.parquet"]
    assert (folder / "customers.parquet").read_text() == "my own bank"


def test_a_simulated_bank_with_added_files_is_not_thrown_away(small: Path) -> None:
    (small / "entities.csv").write_text("customer_id,as_of\n")
    with pytest.raises(InputError, match=r"also holds entities.csv"):
        simulate(small, customers=50, months=2, seed=3)
    assert (small / "entities.csv").is_file()


def test_a_folder_whose_marker_cannot_be_read_is_refused(small: Path) -> None:
    (small / "truth" / "simulation.json").write_text("[]")
    with pytest.raises(InputError, match=r"simulation.json"):
        simulate(small, customers=60, months=2, seed=3)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    simulate(tmp_path / "bank", customers=3, months=1, seed=1)
    marker = json.loads((tmp_path / "bank" / "truth" / "simulation.json").read_text())
    assert (marker["customers"], marker["months"], marker["seed"]) == (3, 1, 1)


@pytest.mark.parametrize("step", ["people", "decisions and reactions", "truth", "transactions"])
def test_a_killed_run_leaves_nothing_half(small: Path, tmp_path: Path, step: str) -> None:
    before = digests(small)
    for target in (small, tmp_path / "new"):
        with pytest.raises(Killed):
            simulate(target, customers=40, months=1, seed=9, progress=KillsAt(step))
    assert digests(small) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]


def test_the_draft_of_a_killed_process_does_not_matter(tmp_path: Path) -> None:
    draft = tmp_path / ".bank.draft"
    (draft / "truth").mkdir(parents=True)
    (draft / "left.parquet").write_text("half")
    simulate(tmp_path / "bank", customers=3, months=1, seed=1)
    assert not (tmp_path / "bank" / "left.parquet").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((0, 1, 1), "customers must be"), ((1, 0, 1), "months must be"), ((1, 1, -1), "seed must be")],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, numbers: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(tmp_path / "bank", *numbers)
    assert list(tmp_path.iterdir()) == []
