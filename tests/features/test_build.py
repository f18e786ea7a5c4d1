"""`nextbest features build`: the same input gives the same features, however often and wherever it was interrupted."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.build import build_features
from features.errors import BankDataError
from features.home import Build, Home
from features.packed import OnlineStates
from features.progress import Advance

CUSTOMERS = ["c1", "c2", "c3", "nobody"]


class Told(Exception):
    """Stands for whatever ends a process."""


class Recorder:
    """Progress that notes each sign of life, and ends the work at the one named."""

    def __init__(self, end_at: int | None = None) -> None:
        self.signs: list[str] = []
        self._end_at = end_at

    def sign(self, name: str) -> None:
        self.signs.append(name)
        if self._end_at == len(self.signs):
            raise Told(name)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Advance]:
        self.sign(name)
        yield lambda done: self.sign(f"{name} +{done}")


def contents(build: Build) -> dict[str, object]:
    """Everything a build is there for, in a form that can be compared."""
    states = OnlineStates(build.online_path, build.views).read(CUSTOMERS)
    online = {
        name: (repr(state.at), repr(state.numbers.tolist()), state.texts.tolist()) for name, state in states.items()
    }
    sources = {view.name: pq.read_table(build.view_path(view)).to_pydict() for view in build.views}
    return {"online": online, "sources": repr(sources), "bank": build.bank.fingerprint, "end": build.data_end}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_a_build_holds_everything_and_is_current(small_bank_folder: Path, home: Home) -> None:
    build = build_features(small_bank_folder, home)
    assert home.build() == build
    assert build.folder.name == build.fingerprint[:16]
    assert build.catalog.product_ids == ("card", "loan", "fund")
    assert build.bank.catalog == build.catalog
    assert build.data_end.isoformat() == "2024-01-22T00:00:00+00:00"
    assert [view.name for view in build.views] == [path.stem for path in map(build.view_path, build.views)]
    states = OnlineStates(build.online_path, build.views).read(CUSTOMERS)
    np.testing.assert_array_equal(np.isnan(states["profile"].at), [False, False, False, True])


def test_the_same_input_is_not_built_again_and_needs_no_feast(small_bank_folder: Path, home: Home) -> None:
    build = build_features(small_bank_folder, home)
    files = [path for path in build.folder.rglob("*") if path.is_file()]
    # Not what readers of the online store share in memory: whoever looks whether it is whole touches it.
    before = {path: path.stat().st_mtime_ns for path in files if not path.name.endswith("-shm")}
    script = (
        "import sys, pathlib, features.build, features.home\n"
        "home = features.home.Home(pathlib.Path(sys.argv[2]))\n"
        "print(features.build.build_features(pathlib.Path(sys.argv[1]), home).folder.name, 'feast' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(small_bank_folder), str(home.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [build.folder.name, "False"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_changed_input_becomes_another_build_and_the_old_one_stays(small_bank_folder: Path, home: Home) -> None:
    first = build_features(small_bank_folder, home)
    kept = contents(first)
    holdings = small_bank_folder / "holdings.parquet"
    pq.write_table(pq.read_table(holdings).slice(0, 2), holdings)
    second = build_features(small_bank_folder, home)
    assert second.fingerprint != first.fingerprint
    assert home.build() == second
    assert contents(Build.open(first.folder)) == kept
    assert contents(second)["sources"] != kept["sources"]


def test_a_refused_input_writes_nothing(small_bank_folder: Path, home: Home) -> None:
    (small_bank_folder / "holdings.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BankDataError):
        build_features(small_bank_folder, home)
    assert not home.root.exists()


def test_a_refused_input_leaves_the_current_build_alone(small_bank_folder: Path, home: Home) -> None:
    build = build_features(small_bank_folder, home)
    (small_bank_folder / "holdings.parquet").unlink()
    (small_bank_folder / "customers.parquet").unlink()
    with pytest.raises(BankDataError):
        build_features(small_bank_folder, home)
    assert home.build() == build


def test_a_build_interrupted_anywhere_ends_the_same_when_run_again(small_bank_folder: Path, tmp_path: Path) -> None:
    undisturbed = Recorder()
    expected = contents(build_features(small_bank_folder, Home(tmp_path / "undisturbed"), undisturbed))
    signs = undisturbed.signs
    ends = {signs.index(name) for name in signs}  # every step, and after the first unit of the long ones
    ends |= {len(signs) - 4, len(signs) - 1}  # half materialised; all done but the marker
    home = Home(tmp_path / "home")
    for end in sorted(ends):
        with pytest.raises(Told, match=re.escape(signs[end])):
            build_features(small_bank_folder, home, Recorder(end + 1))
        assert not (home.root / "current").exists(), f"interrupted at {signs[end]!r}, yet current"
    assert contents(build_features(small_bank_folder, home)) == expected


def test_a_killed_process_leaves_nothing_that_harms_the_next(small_bank_folder: Path, tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from features.build import build_features
from features.home import Home
class Killing:
    @contextmanager
    def step(self, name, total=None):
        yield lambda done: os.kill(os.getpid(), signal.SIGKILL) if name.startswith("materialise") else None
build_features(Path({str(small_bank_folder)!r}), Home(Path({str(tmp_path / "home")!r})), Killing())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [left] = (tmp_path / "home" / "builds").iterdir()
    assert (left / "online.db").exists()
    assert not (left / "complete.json").exists()
    again = build_features(small_bank_folder, Home(tmp_path / "home"))
    assert contents(again) == contents(build_features(small_bank_folder, Home(tmp_path / "undisturbed")))


def test_a_damaged_leftover_is_replaced(small_bank_folder: Path, home: Home) -> None:
    build = build_features(small_bank_folder, home)
    expected = contents(build)
    (build.folder / "complete.json").unlink()
    build.online_path.write_bytes(b"half")
    build.view_path(build.views[0]).unlink()
    (build.feast_folder / "registry.db").write_bytes(b"half")
    assert contents(build_features(small_bank_folder, home)) == expected


def test_two_builds_at_one_moment_take_turns_and_share_the_work(small_bank_folder: Path, home: Home) -> None:
    recorders = [Recorder(), Recorder()]
    built: list[Build] = []
    threads = [
        threading.Thread(
            target=lambda recorder=recorder: built.append(build_features(small_bank_folder, home, recorder))
        )
        for recorder in recorders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built[0] == built[1] == home.build()
    assert sum("import the tables" in recorder.signs for recorder in recorders) == 1
