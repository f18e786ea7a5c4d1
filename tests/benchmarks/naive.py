"""The stack that an engineer writes first, as the libraries' own quickstarts show it, and a tidied one.

Feast's driver-ranking tutorial (feast-dev/feast-driver-ranking-tutorial): `FeatureStore(repo_path=…)` made once,
`get_online_features(features=[…], entity_rows=[…]).to_dict()` → `pd.DataFrame.from_dict` → `model.predict(df[…])` →
the best row. LightGBM's scikit-learn API and pandas as in their own first examples. FastAPI's first steps: a pydantic
body and `def` under `@app.post`. BentoML's quickstart: a class with `@bentoml.service` and `@bentoml.api`.

It does less than ours: no rules, no consent, no limits, no propensity, no channel model, no record of the decision,
and one text is filled in. It reads 80 features; ours reads all states of a customer and builds its rows from them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd

WORLD = "NEXTBEST_BENCH_WORLD"
"""In the environment: the folder that `naive_world` filled."""
TOP = 3


def folder() -> Path:
    return Path(os.environ[WORLD])


def restored(path: Path) -> lightgbm.LGBMClassifier:
    """A fitted classifier around the trees in the text file: nothing here is unpickled."""
    model = lightgbm.LGBMClassifier()
    booster = lightgbm.Booster(model_file=path)
    model._Booster, model.fitted_ = booster, True
    model._n_features = model._n_features_in = booster.num_feature()
    model._classes = np.arange(booster.num_model_per_iteration())
    model._n_classes = len(model._classes)
    model._objective = "multiclass"
    return model


class Naive:
    """One decision: the SDK, a DataFrame, predict_proba, and the best three's 120 actions in pandas."""

    def __init__(self) -> None:
        from feast import FeatureStore

        said = json.loads((folder() / "naive.json").read_text())
        self.store = FeatureStore(repo_path=str(folder() / "feast"))
        self.features: list[str] = said["features"]
        self.columns: list[str] = [name.split(":")[1] for name in self.features]
        self.model = restored(folder() / "naive.txt")
        self.products = pd.DataFrame(said["products"])
        self.channels = pd.DataFrame(said["channels"])
        self.contents = pd.DataFrame(said["contents"])

    def decide(self, customer_id: str) -> dict[str, Any]:
        features = self.store.get_online_features(
            features=self.features,
            entity_rows=[{"customer_id": customer_id}],
        )
        df = pd.DataFrame.from_dict(features.to_dict())
        products = self.products.copy()
        products["probability"] = self.model.predict_proba(df[self.columns])[0]
        best = products.sort_values("probability", ascending=False).head(TOP)
        actions = best.merge(self.channels, how="cross").merge(self.contents, how="cross")
        actions["value"] = actions["probability"] * actions["response"] * actions["margin"] - actions["cost"]
        action = actions.loc[actions["value"].idxmax()]
        return {
            "customer_id": customer_id,
            "product_id": action["product_id"],
            "channel": action["channel"],
            "content_id": action["content_id"],
            "text": action["template"].format(product=action["name"], channel=action["channel"]),
            "value": float(action["value"]),
        }


class Tidied:
    """The same without a DataFrame: the SDK's dict into one numpy row, the booster on one thread, actions in numpy."""

    def __init__(self) -> None:
        naive = Naive()
        self.store, self.features, self.columns = naive.store, naive.features, naive.columns
        self.booster = lightgbm.Booster(model_file=folder() / "naive.txt")
        self.products = naive.products.to_dict("records")
        self.channels = naive.channels.to_dict("records")
        self.contents = naive.contents.to_dict("records")
        self.margin = naive.products["margin"].to_numpy()
        self.response = naive.channels["response"].to_numpy()
        self.cost = naive.channels["cost"].to_numpy()

    def decide(self, customer_id: str) -> dict[str, Any]:
        got = self.store.get_online_features(features=self.features, entity_rows=[{"customer_id": customer_id}])
        values = got.to_dict()
        row: npt.NDArray[np.float32] = np.array(
            [[values[name][0] for name in self.columns]], dtype=np.float32
        )  # [1, F]
        probability = np.asarray(self.booster.predict(row, num_threads=1))[0]  # [P]
        top = np.argpartition(-probability, TOP)[:TOP]
        by_channel = (probability * self.margin)[top, None] * self.response - self.cost  # [TOP, H]
        value = np.repeat(by_channel[:, :, None], len(self.contents), axis=2)  # [TOP, H, C]
        at, channel_at, content_at = np.unravel_index(int(value.argmax()), value.shape)
        product, channel, content = self.products[top[at]], self.channels[channel_at], self.contents[content_at]
        return {
            "customer_id": customer_id,
            "product_id": product["product_id"],
            "channel": channel["channel"],
            "content_id": content["content_id"],
            "text": content["template"].format(product=product["name"], channel=channel["channel"]),
            "value": float(value[at, channel_at, content_at]),
        }
