"""The home folder: what is current, what counts as built, what is told to who has nothing yet."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from features.errors import ArtefactError, InputError, NotBuilt
from features.home import FEATURES_VERSION, Build, Home, replace_text
from features.schema import Column, View

VIEWS = (
    View(
        "profile", "customer", timedelta(days=36_500, microseconds=1), (Column("income"), Column("município", "text"))
    ),
    View("market", "market", timedelta(hours=36), (Column("share"),)),
    View("empty", "customer", timedelta(days=1), ()),
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def build(home: Home) -> Build:
    build = Build(home.builds / "0123", "0123" * 16, VIEWS, datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC))
    build.folder.mkdir(parents=True)
    return build


def test_a_home_without_features_says_how_to_build_them(home: Home) -> None:
    with pytest.raises(NotBuilt, match="nextbest features build DIR") as raised:
        home.build()
    assert isinstance(raised.value, InputError)
    assert raised.value.exit_code == 2
    assert not home.root.exists(), "asking must not write"


def test_the_current_build_comes_back_as_it_was(home: Home, build: Build) -> None:
    build.mark_complete()
    home.use(build)
    assert home.build() == build


def test_a_build_without_its_marker_is_no_build(home: Home, build: Build) -> None:
    home.use(build)
    with pytest.raises(NotBuilt, match="no complete feature build"):
        home.build()


def test_features_of_other_code_are_not_used(build: Build) -> None:
    build.mark_complete()
    marker = build.folder / "complete.json"
    content = json.loads(marker.read_text())
    marker.write_text(json.dumps({**content, "features_version": FEATURES_VERSION + 1}))
    with pytest.raises(NotBuilt, match=f"version {FEATURES_VERSION}, however"):
        Build.open(build.folder)


def test_a_damaged_marker_is_told_from_a_missing_one(build: Build) -> None:
    (build.folder / "complete.json").write_text('{"features_version": 1, ')
    with pytest.raises(ArtefactError, match="damaged"):
        Build.open(build.folder)


def test_another_build_becomes_current_in_one_step(home: Home, build: Build) -> None:
    other = replace(build, folder=home.builds / "4567", fingerprint="4567" * 16)
    other.folder.mkdir()
    for made in (build, other):
        made.mark_complete()
        home.use(made)
    assert home.build() == other
    assert sorted(path.name for path in home.root.iterdir()) == ["builds", "current"], "no temporary file stays"


def test_a_replaced_file_is_never_seen_half(tmp_path: Path) -> None:
    path = tmp_path / "text"
    replace_text(path, "old")
    with path.open() as reader:
        replace_text(path, "new ü")
        assert reader.read() == "old"
    assert path.read_text("utf-8") == "new ü"


def test_paths_of_a_build_lie_in_its_folder_and_sources_are_absolute(build: Build) -> None:
    relative = replace(build, folder=Path("somewhere"))
    assert relative.view_path(VIEWS[0]) == Path.cwd() / "somewhere" / "views" / "profile.parquet"
    assert build.online_path.parent == build.folder
