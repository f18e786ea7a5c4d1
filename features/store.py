"""Feast as the store of customer states: apply the definitions, materialise, and its own client of a build.

Beside the definitions and the plug-ins the one module that imports Feast. Import it where it is used: it costs seconds.
History for learning needs none of it (`features.history`).
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import ibis
import yaml
from feast import FeatureStore, RepoConfig

from features.definitions import definitions
from features.home import Build
from features.progress import SILENT, Progress

_FIRST = datetime(1900, 1, 1, tzinfo=UTC)


def feature_store(build: Build, online: str | None = "") -> FeatureStore:
    """Feast's own client of a build: registry, history and online features, over our stores.

    online: URL of a Redis server; empty: the build's file; None: without online features. The definitions are applied
    again where the home was moved, as they hold absolute paths.
    """
    store = _client(build, online)
    paths = {view.name: view.batch_source.path for view in store.list_feature_views()}
    if any(paths.get(view.name) != str(build.view_path(view)) for view in build.views):
        apply(build, online)
        store = _client(build, online)
    return store


def apply(build: Build, online: str | None = "") -> None:
    """Register the build's definitions; what is registered already is brought up to date."""
    build.feast_folder.mkdir(parents=True, exist_ok=True)
    with _no_printing():
        _client(build, online).apply(definitions(build))


def materialise(build: Build, until: datetime, progress: Progress = SILENT, online: str = "") -> None:
    """Bring the newest states that had happened, and were known, by `until` into the online store."""
    store = feature_store(build, online)
    with progress.step("materialise the feature views", len(build.views)) as advance, own_duckdb():
        for view in build.views:
            with _no_printing():
                store.materialize(start_date=_FIRST, end_date=until, feature_views=[view.name])
            advance(1)


def _client(build: Build, online: str | None) -> FeatureStore:
    settings = yaml.safe_load(resources.files("features").joinpath("feature_store.yaml").read_text("utf-8"))
    stores = settings.pop("online_stores")
    settings["online_store"] = None if online is None else stores["redis" if online else "file"]
    filled = _filled(settings, {"folder": str(build.folder.resolve()), "build": build.folder.name, "url": online or ""})
    return FeatureStore(config=RepoConfig(repo_path=build.feast_folder, **filled))


def _filled(settings: Any, words: Mapping[str, str]) -> Any:
    """The settings with each {word} filled in, wherever it stands."""
    if isinstance(settings, dict):
        return {name: _filled(value, words) for name, value in settings.items()}
    if isinstance(settings, str):
        for word, value in words.items():
            settings = settings.replace(f"{{{word}}}", value)
    return settings


@contextmanager
def own_duckdb() -> Iterator[None]:
    """A DuckDB of its own for Feast's queries, closed afterwards; it spills to a temporary folder, not to `./.tmp`."""
    before = ibis.options.default_backend
    with tempfile.TemporaryDirectory() as folder:
        backend = ibis.duckdb.connect(temp_directory=folder)
        ibis.set_backend(backend)
        try:
            with warnings.catch_warnings():
                # ibis 12 calls what DuckDB 2 deprecates, and Feast turns such warnings on.
                warnings.simplefilter("ignore", DeprecationWarning)
                yield
        finally:
            ibis.options.default_backend = before
            backend.disconnect()


@contextmanager
def _no_printing() -> Iterator[None]:
    """Feast prints coloured progress to stdout, where --json writes."""
    with redirect_stdout(io.StringIO()):
        yield
