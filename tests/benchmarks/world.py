"""The world of the benchmarks: the generated bank, built and trained by the public commands, and the naive stack's own.

Everything lies in one folder and is made once; a folder that is complete is used again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bank import CHANNEL_IDS, CONTENTS, COSTS, PROMOTED, customer_ids, product_ids, write_bank

CUSTOMERS = 8_000
"""Where nothing else is asked for."""
VERSION = 1
"""Raised when a world is made otherwise."""
FEATURES = 80
"""That the other stacks read: the first of our own rows' columns that vary."""
FEATURE_VIEWS = 4
REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = ("next-best-product", "channel-choice")


@dataclass(frozen=True)
class World:
    """Where everything is."""

    folder: Path
    customers: int

    @property
    def bank(self) -> Path:
        return self.folder / "bank"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def versions(self) -> dict[str, str]:
        """Model → version in the registry."""
        return dict(json.loads((self.folder / "trained.json").read_text()))

    @property
    def customer_ids(self) -> list[str]:
        return customer_ids(self.customers)

    def environment(self, checkout: Path, home: Path | None = None) -> dict[str, str]:
        """For a command or a server of ours, of the code in `checkout`."""
        own = {
            "PYTHONPATH": str(checkout),
            "NEXTBEST_HOME": str(home or self.home),
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if (self.folder / "trained.json").exists():
            own |= {
                "NEXTBEST_PRODUCT_MODEL": self.versions["next-best-product"],
                "NEXTBEST_CHANNEL_MODEL": self.versions["channel-choice"],
            }
        return {**os.environ, **own}

    def copy_of_home(self, target: Path) -> Path:
        """A home of its own for a server: the same features, an empty ledger."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.home, target, ignore=shutil.ignore_patterns("ledger.db*", "bentoml", "rows"))
        return target


def make_world(folder: Path, customers: int | None = None, checkout: Path = REPOSITORY) -> World:
    """The world in `folder`, made where there is none; ValueError where another one is there than was asked for."""
    folder = folder.resolve()
    marker = folder / "complete.json"
    found = json.loads(marker.read_text()) if marker.exists() else None
    customers = customers or (found["customers"] if found else CUSTOMERS)
    wanted = {"customers": customers, "version": VERSION}
    world = World(folder, customers)
    if found:
        if found != wanted:
            raise ValueError(f"{folder} must hold the world {wanted}, however it holds {found}; choose another --world")
        return world
    folder.mkdir(parents=True, exist_ok=True)
    _say(f"a bank of {customers:,} customers")
    write_bank(world.bank, customers)
    _command(world, checkout, "features", "build", str(world.bank))
    versions = {}
    for model in MODELS:
        trained = json.loads(_command(world, checkout, "train", model, "--family", "lightgbm", "--json"))
        versions[model] = str(trained["version"])
    _command(world, checkout, "train", "send-time")
    (folder / "trained.json").write_text(json.dumps(versions))
    _say("the naive stack's features and model")
    make_naive_world(world)
    marker.write_text(json.dumps(wanted))
    return world


def make_naive_world(world: World) -> None:
    """80 features of every customer in Feast's default online store, and a classifier of 24 products on them."""
    values, names = _rows(world)
    refs = _fill_feast(world, values, names)
    _train_naive(world, values, names)
    promoted = product_ids()[:PROMOTED]
    templates = [
        f"Dear customer, {{product}}: offer {number + 1}. Ask us on {{channel}}." for number in range(CONTENTS)
    ]
    said: dict[str, Any] = {
        "features": refs,
        "products": [
            {"product_id": product, "name": product, "margin": 40.0 + 35.0 * at, "promoted": product in promoted}
            for at, product in enumerate(product_ids())
        ],
        "channels": [
            {"channel": channel, "cost": cost, "response": 0.05 + 0.01 * at}
            for at, (channel, cost) in enumerate(zip(CHANNEL_IDS, COSTS, strict=True))
        ],
        "contents": [{"content_id": f"content_{at}", "template": text} for at, text in enumerate(templates)],
    }
    (world.folder / "naive.json").write_text(json.dumps(said))


def _rows(world: World) -> tuple[Any, list[str]]:
    """float32 [customers, FEATURES] at the end of the data, and names that Feast and LightGBM take."""
    import numpy as np

    from features.assemble import assemble, row_schema
    from features.home import Home
    from features.packed import OnlineStates

    build = Home(world.home).build()
    states = OnlineStates(build.online_path, build.views).read(world.customer_ids)
    moments = np.full(world.customers, build.data_end.timestamp())
    block = assemble(states, moments, row_schema(build.bank)).customer
    with np.errstate(invalid="ignore"):
        varies = np.flatnonzero(np.nanstd(np.where(np.isfinite(block), block, 0.0), axis=0) > 0)[:FEATURES]
    return block[:, varies], [f"f{number:02d}" for number in range(len(varies))]


def _fill_feast(world: World, values: Any, names: list[str]) -> list[str]:
    """Feast as `feast init` sets it up: local provider, file offline store, SQLite online store."""
    from datetime import UTC, datetime, timedelta

    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32

    folder = world.folder / "feast"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(
        "project: naive\nprovider: local\nregistry: data/registry.db\n"
        "online_store:\n    type: sqlite\n    path: data/online_store.db\nentity_key_serialization_version: 3\n"
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
    store, views, refs = FeatureStore(repo_path=str(folder)), [], []
    for number in range(FEATURE_VIEWS):
        mine = names[number::FEATURE_VIEWS]
        table = pd.DataFrame(values[:, number::FEATURE_VIEWS], columns=mine)
        table.insert(0, "customer_id", world.customer_ids)
        table["event_timestamp"], table["created"] = at, at
        path = folder / "data" / f"view_{number}.parquet"
        table.to_parquet(path)
        source = FileSource(path=str(path), timestamp_field="event_timestamp", created_timestamp_column="created")
        views.append(
            FeatureView(
                name=f"view_{number}",
                entities=[customer],
                ttl=timedelta(days=36_500),
                schema=[Field(name=name, dtype=Float32) for name in mine],
                source=source,
                online=True,
            )
        )
        refs += [f"view_{number}:{name}" for name in mine]
    store.apply([customer, *views])
    store.materialize(at - timedelta(days=1), at + timedelta(days=1))
    return refs


def _train_naive(world: World, values: Any, names: list[str]) -> None:
    """LightGBM's scikit-learn API with its defaults on what each took up last; saved as text and for MLflow."""
    import lightgbm
    import mlflow.lightgbm
    import numpy as np
    import pandas as pd
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    events = pq.read_table(world.bank / "timeline.parquet")
    bought = events.filter(pc.equal(events["kind"], "converted")).to_pandas()
    last = bought.drop_duplicates("customer_id", keep="last").set_index("customer_id")["product_id"]
    label = pd.Series(world.customer_ids).map(last)
    code = {product: number for number, product in enumerate(product_ids())}
    there = np.flatnonzero(label.notna())[:6_000]
    y = label.iloc[there].map(code).to_numpy().astype(int)
    y[: len(code)] = np.arange(len(code))  # every product has a class
    model = lightgbm.LGBMClassifier(verbose=-1)
    model.fit(pd.DataFrame(values[there], columns=names), y)
    model.booster_.save_model(world.folder / "naive.txt")
    served = world.folder / "naive-mlflow"
    shutil.rmtree(served, ignore_errors=True)
    mlflow.lightgbm.save_model(model.booster_, str(served))


def _command(world: World, checkout: Path, *arguments: str) -> str:
    _say("nextbest " + " ".join(arguments))
    done = subprocess.run(
        [sys.executable, "-m", "training.cli", *arguments],
        env=world.environment(checkout),
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"nextbest {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
