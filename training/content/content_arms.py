"""What each content earns on average, and how to weigh a log that did not choose by equal lot.

The propensity of a log is that of product, channel and content together. A policy over contents leaves the channel to
whatever the log did: with ρ(h|x, c) the channels' shares given content and customer, and μ the logged propensity,

    w = ρ(h|x, c) / μ(c, h|x)

weighs the logged decisions to those of "content c, then the channel by ρ". ρ is 1 where a content was only ever sent by
one channel, then w is the inverse of the logged propensity; else it is learned from other customers' decisions. Any ρ
gives right weights as long as it is one that the log supports; its mean over a policy's own decisions, 1, is checked.
"""

from __future__ import annotations

from typing import Any

import lightgbm
import numpy as np

from features.catalog import Catalog
from features.schema import Float32, Float64, Int64, Rows
from serving.content_model import Arms
from serving.sendable import products_of
from training.content.content_log import ContentLog
from training.content.uplift import parts

PRODUCT_TRIALS = 200.0
"""Decisions that the rate of all contents is worth, as a start of a product's."""
CONTENT_TRIALS = 400.0
"""Decisions that a product's rate is worth, as a start of its contents': texts of one product differ little."""
WORTH_TRIALS = 10.0
"""Take-ups that the declared margin (or the mean worth) is worth."""
FEWEST_TRIED = 20
"""Decisions of a content below which it counts as never tried."""
CHANNEL_ROUNDS = 30
CHANNEL_FOLDS = 2
CHANNEL_SETTINGS: dict[str, Any] = {
    "objective": "multiclass",
    "learning_rate": 0.15,
    "num_leaves": 8,
    "lambda_l2": 5.0,
    "feature_fraction": 0.5,
    "max_bin": 63,
    "min_data_in_leaf": 50,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbosity": -1,
}


def weights(log: ContentLog, rows: Rows, seed: int) -> Float64:
    """w of each logged decision, float64 [n]; no customer's weight is learned from that customer."""
    return np.asarray(channel_shares(log, rows, seed) / log.propensity)


def channel_shares(log: ContentLog, rows: Rows, seed: int) -> Float64:
    """ρ of the channel that was taken, float64 [n]; 1 for no contact."""
    found = np.ones(len(log))
    pairs = np.unique(log.arm * (len(log.channels) + 1) + log.channel + 1)
    several = np.bincount(pairs // (len(log.channels) + 1), minlength=len(log.contents) + 1) > 1
    asked_of = several[log.arm] & ~log.silent
    if not asked_of.any():
        return found
    used, channel = np.unique(log.channel[asked_of], return_inverse=True)
    settings = {**CHANNEL_SETTINGS, "num_class": len(used), "seed": seed}
    where = np.flatnonzero(asked_of)
    lines = _lines(rows, log.arm, where)
    for learned, asked in parts(log.customer_id[where], CHANNEL_FOLDS, seed):
        data = lightgbm.Dataset(lines[learned], channel[learned], categorical_feature=[lines.shape[1] - 1])
        booster = lightgbm.train(settings, data, CHANNEL_ROUNDS)
        shares = np.asarray(booster.predict(lines[asked], num_threads=int(settings["num_threads"])))
        found[where[asked]] = shares[np.arange(len(asked)), channel[asked]]
    return found


def arms_of(log: ContentLog, weight: Float64, catalog: Catalog) -> Arms:
    """Rates, worths and costs of all arms; a content's rate starts from its product's, that from all contents'."""
    count = len(log.contents) + 1
    product = products_of(catalog)
    group = np.append(product + 1, -1)[log.arm]  # 0: about no product; -1: no contact
    took = log.took.astype(np.float64)
    contact = ~log.silent
    of_all = _rate(np.zeros(int(contact.sum()), np.int64), took[contact], weight[contact], 1, np.zeros(1), 0.0)
    groups = len(catalog.products) + 1
    of_group = _rate(group[contact], took[contact], weight[contact], groups, np.repeat(of_all, groups), PRODUCT_TRIALS)
    start = np.append(of_group[product + 1], 0.0)
    rate = _rate(log.arm, took, weight, count, start, CONTENT_TRIALS)
    silent = log.silent
    rate[-1] = np.average(took[silent], weights=weight[silent]) if silent.any() else 0.0
    return Arms(
        contents=log.contents,
        product=product,
        tried=np.append(np.bincount(log.arm, minlength=count)[:-1] >= FEWEST_TRIED, True),
        rate=rate,
        worth=_worth(log, catalog, product, count),
        cost=_cost(log, weight, count),
        unit=log.unit,
    )


def _rate(group: Int64, took: Float64, weight: Float64, count: int, start: Float64, trials: float) -> Float64:
    """Weighted rates by group, each drawn to its start as if that were worth so many decisions; float64 [count].

    Weighted decisions count as their effective number, (Σw)² / Σw² (Kish 1965).
    """
    total, squares = (np.bincount(group, weights=part, minlength=count) for part in (weight, weight**2))
    taken = np.bincount(group, weights=weight * took, minlength=count)
    size = np.divide(total**2, squares, out=np.zeros(count), where=squares > 0)
    rate = np.divide(taken, total, out=np.zeros(count), where=total > 0)
    return np.asarray((rate * size + start * trials) / np.maximum(size + trials, 1e-12))


def _worth(log: ContentLog, catalog: Catalog, product: Int64, count: int) -> Float64:
    """float64 [count]: what a decision with a take-up gained, from the product's margin or the mean of all."""
    took = log.took
    usual = float(log.gained[took].mean()) if took.any() else 0.0
    declared = [one.margin for one in catalog.products]
    start = np.array([usual if one is None else one for one in (*declared, None)])[np.append(product, -1)]
    if log.unit != catalog.currency:
        start = np.full(count, usual)
    gained = np.bincount(log.arm[took], weights=log.gained[took], minlength=count)
    number = np.bincount(log.arm[took], minlength=count)
    return np.asarray((gained + WORTH_TRIALS * start) / (number + WORTH_TRIALS))


def _cost(log: ContentLog, weight: Float64, count: int) -> Float64:
    """float64 [count]: mean cost of a decision; no contact costs nothing."""
    contact = ~log.silent
    usual = float(np.average(log.spent[contact], weights=weight[contact])) if contact.any() else 0.0
    cost = _rate(log.arm, log.spent, weight, count, np.full(count, usual), WORTH_TRIALS)
    cost[-1] = 0.0
    return cost


def _lines(rows: Rows, arm: Int64, where: Int64) -> Float32:
    """Customer and content of some rows, float32 [k, C + 1]."""
    return np.concatenate([rows.customer[where], arm[where, None].astype(np.float32)], axis=1)
