"""Trees of the take-up beside the rate of every arm: who is suited by which content."""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

from features.catalog import Catalog
from features.schema import Bool, Float64, Rows
from serving.content_model import Arms, content_lines, line_width
from training.content.content_arms import arms_of
from training.content.content_log import ContentLog
from training.content.uplift import parts

HELD_OUT = 4
"""One customer in so many tells how long to boost."""
MOST_ROUNDS = 120
PATIENCE = 40
ARM_GAIN = 30.0
"""Factor on the gain of splits on the arm and its product. The trees begin at the right rate of every arm, so at their
root neither an arm nor, where each suits as many as it does not, a customer's column has a gain: greedy trees would
never learn who is suited by what (see `fit_lightgbm`)."""
SETTINGS: dict[str, Any] = {
    "objective": "binary",
    "metric": "binary_logloss",
    "learning_rate": 0.06,
    "num_leaves": 12,
    "lambda_l2": 10.0,
    "feature_fraction": 0.8,  # a tree without the arm learns nothing of who is suited by what
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "max_bin": 63,
    "min_sum_hessian_in_leaf": 2.0,
    "cat_smooth": 20.0,
    "boost_from_average": False,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbosity": -1,
}


def boost(log: ContentLog, rows: Rows, arms: Arms, rounds: int, seed: int) -> lightgbm.Booster | None:
    """Trees of the take-up beside the rate of the arm; None for no rounds."""
    if rounds == 0:
        return None
    booster = lightgbm.train(
        _settings(len(log), line_width(rows.schema), seed), _data(log, rows, arms), num_boost_round=rounds
    )
    return lightgbm.Booster(model_str=booster.model_to_string())  # as text and back: the same before and after saving


def rounds_of(log: ContentLog, rows: Rows, weight: Float64, catalog: Catalog, seed: int) -> int:
    """Rounds after which a quarter of the customers is foretold no better; 0 where the rates alone do as well."""
    learned, asked = next(parts(log.customer_id, HELD_OUT, seed + 1))
    arms = arms_of(log.take(learned), weight[learned], catalog)
    data = _data(log.take(learned), rows.take(learned), arms)
    valid = _data(log.take(asked), rows.take(asked), arms, data)
    booster = lightgbm.train(
        _settings(len(learned), line_width(rows.schema), seed),
        data,
        num_boost_round=MOST_ROUNDS,
        valid_sets=[valid],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    usual = _log_loss(arms.rate[log.arm[asked]], log.took[asked])
    best = float(booster.best_score["valid_0"]["binary_logloss"])
    return int(booster.best_iteration) if best < usual else 0


def _log_loss(chance: Float64, took: Bool) -> float:
    kept = np.clip(chance, 1e-9, 1.0 - 1e-9)
    return float(-np.log(np.where(took, kept, 1.0 - kept)).mean())


def _settings(rows: int, columns: int, seed: int) -> dict[str, Any]:
    return {
        **SETTINGS,
        "min_data_in_leaf": int(np.clip(rows // 300, 10, 300)),
        "feature_contri": [1.0] * (columns - 2) + [ARM_GAIN, ARM_GAIN],
        "seed": seed,
    }


def _data(log: ContentLog, rows: Rows, arms: Arms, reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
    lines = content_lines(rows, arms.product, np.arange(len(log)), log.arm)
    width = lines.shape[1]
    return lightgbm.Dataset(
        lines,
        log.took.astype(np.float64),
        init_score=arms.logit[log.arm],
        reference=reference,
        categorical_feature=[width - 2, width - 1],
        params={"max_bin": SETTINGS["max_bin"], "verbosity": -1},
        free_raw_data=True,
    )
