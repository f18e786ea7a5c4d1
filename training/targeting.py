"""Targeting metrics: whom would a campaign reach that writes to the highest scored pairs of customer and candidate?

scores: float64 [k], happened: bool [k], pooled pairs. Within a tie no order is earned: a cut inside one counts its
pairs in proportion. NaN where only one of the outcomes occurs.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import ks_2samp
from sklearn.metrics import average_precision_score

from features.schema import Bool, Float64

DECILES = tuple(range(1, 11))
PR_AUC = "pr_auc"
KS = "ks"


def curve(scores: Float64, happened: Bool) -> tuple[Float64, Float64]:
    """Share of the pairs reached, best first, and share of what happened that is found there; straight within ties."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)  # the last pair of each score
    found = np.cumsum(happened[order])[last] / happened.sum()
    return np.concatenate([[0.0], (last + 1) / len(order)]), np.concatenate([[0.0], found])


def capture(scores: Float64, happened: Bool, share: float) -> float:
    """Share of what happened that lies in the highest scored `share` of the pairs."""
    return float(np.interp(share, *curve(scores, happened))) if happened.any() else float("nan")


def targeting(scores: Float64, happened: Bool) -> dict[str, float]:
    """capture_by_decile_1…10 (cumulative), lift_by_decile_1…10 (within each tenth; 1 = no better than chance),
    PR-AUC (average precision, which interpolates nothing) and KS (largest distance of the two score distributions)."""
    both = bool(happened.any() and not happened.all())
    captured = [0.0, *(capture(scores, happened, decile / 10) for decile in DECILES)]
    values = {f"capture_by_decile_{decile}": captured[decile] for decile in DECILES}
    values |= {f"lift_by_decile_{decile}": 10 * (captured[decile] - captured[decile - 1]) for decile in DECILES}
    values[PR_AUC] = float(average_precision_score(happened, scores)) if both else float("nan")
    values[KS] = float(ks_2samp(scores[happened], scores[~happened]).statistic) if both else float("nan")
    return values
