"""The home folder: where everything that the product writes lives, and the feature build that is current in it.

home/
  current               name of the build that commands use, replaced in one step
  lock                  held while a build is made
  ledger.db             decisions and feedback (serving writes it)
  builds/<fingerprint>/
    bank/               the imported copy of the bank's tables and catalogue
    views/<view>.parquet  customer states over time: Feast's offline source
    feast/registry.db   Feast's definitions
    online.db           newest states, packed; not where they are on a Redis server
    complete.json       written last: a folder without it is a build that was interrupted
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.catalog import Catalog
from features.errors import ArtefactError, NotBuilt
from features.schema import Column, View

if TYPE_CHECKING:
    from features.importing import Bank

FEATURES_VERSION = 2
"""Raise it when a fold or a view changes its meaning: features of another version are never reused."""

_MARKER = "complete.json"
_BUILD_IT = "build features with `nextbest features build DIR`"


@dataclass(frozen=True)
class Build:
    """One complete feature build: immutable once written."""

    folder: Path
    fingerprint: str
    """SHA-256 over the bank's data, the version of the feature code and the views' layout."""
    views: tuple[View, ...]
    data_end: datetime
    """UTC time of the latest event in the bank's tables: what is materialised is the state at this moment."""

    @property
    def online_path(self) -> Path:
        return self.folder / "online.db"

    @property
    def feast_folder(self) -> Path:
        return self.folder / "feast"

    @property
    def bank_folder(self) -> Path:
        return self.folder / "bank"

    def view_path(self, view: View) -> Path:
        """The Parquet file of a view's states over time; absolute, as Feast's duckdb store needs it."""
        return (self.folder / "views" / f"{view.name}.parquet").resolve()

    @cached_property
    def bank(self) -> Bank:
        """The imported tables, loaded on first use."""
        from features.importing import load_bank

        return load_bank(self.bank_folder)

    @cached_property
    def catalog(self) -> Catalog:
        """The bank's catalogue, loaded on first use and without the tables."""
        from features.catalog import load_catalog

        return load_catalog(self.bank_folder / "catalog.toml")

    def mark_complete(self) -> None:
        """Write the marker; everything else of the build must be there already."""
        marker = {
            "features_version": FEATURES_VERSION,
            "fingerprint": self.fingerprint,
            "data_end": self.data_end.astimezone(UTC).isoformat(),
            "views": [_view_to_json(view) for view in self.views],
        }
        replace_text(self.folder / _MARKER, json.dumps(marker, indent=1, ensure_ascii=False))

    def unmark(self) -> None:
        """Remove the marker: from now on the build counts as interrupted."""
        (self.folder / _MARKER).unlink(missing_ok=True)

    @classmethod
    def open(cls, folder: Path) -> Build:
        """The complete build in `folder`; raises NotBuilt for a missing, interrupted or outdated one."""
        try:
            marker = json.loads((folder / _MARKER).read_text("utf-8"))
        except FileNotFoundError:
            raise NotBuilt(f"{folder} holds no complete feature build; {_BUILD_IT}") from None
        except ValueError as error:
            raise ArtefactError(f"{folder / _MARKER} is damaged ({error}); {_BUILD_IT}") from error
        if marker.get("features_version") != FEATURES_VERSION:
            raise NotBuilt(
                f"the features in {folder} must be of version {FEATURES_VERSION}, however they are of version "
                f"{marker.get('features_version')}; {_BUILD_IT}"
            )
        return cls(
            folder,
            marker["fingerprint"],
            tuple(_view_from_json(raw) for raw in marker["views"]),
            datetime.fromisoformat(marker["data_end"]),
        )


@dataclass(frozen=True)
class Home:
    """The folder given by `--home`. Nothing is created until something is written."""

    root: Path

    @property
    def builds(self) -> Path:
        return self.root / "builds"

    @property
    def ledger_path(self) -> Path:
        return self.root / "ledger.db"

    @property
    def lock_path(self) -> Path:
        return self.root / "lock"

    @property
    def current(self) -> str:
        """Name of the current build; empty where there is none."""
        try:
            return (self.root / "current").read_text("utf-8").strip()
        except FileNotFoundError:
            return ""

    def build(self) -> Build:
        """The current build; raises NotBuilt where there is none."""
        name = self.current
        if not name:
            raise NotBuilt(f"there are no features in {self.root} yet; {_BUILD_IT}")
        return Build.open(self.builds / name)

    def use(self, build: Build) -> None:
        """Make `build` the current one, in one step."""
        replace_text(self.root / "current", build.folder.name + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that a reader, and a kill at any moment, sees the old text or the new one, whole."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _view_to_json(view: View) -> dict[str, Any]:
    columns = [[column.name, column.kind] for column in view.columns]
    return {"name": view.name, "entity": view.entity, "ttl_seconds": view.ttl.total_seconds(), "columns": columns}


def _view_from_json(raw: dict[str, Any]) -> View:
    columns = tuple(Column(name, kind) for name, kind in raw["columns"])
    return View(raw["name"], raw["entity"], timedelta(seconds=raw["ttl_seconds"]), columns)
