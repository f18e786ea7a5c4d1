"""Sampling by a hash of the row itself: which rows are used does not depend on which others exist."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

UInt64 = npt.NDArray[np.uint64]
STEPS_PER_HALVING = 4


def hashes(customer_id: npt.NDArray[np.object_], as_of: npt.NDArray[np.int64] | None = None) -> UInt64:
    """uint64 [n]: the same on every machine and in every run (SipHash of the id, mixed with the time, µs)."""
    mixed = pd.util.hash_array(np.asarray(customer_id, dtype=object), categorize=False).astype(np.uint64)
    if as_of is not None:
        mixed = mixed ^ (as_of.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    # the finaliser of SplitMix64 (Steele, Lea, Flood 2014): neighbouring inputs, unrelated outputs
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def shares(values: UInt64) -> npt.NDArray[np.float64]:
    """Hashes as float64 in [0, 1)."""
    return (values >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def under_cap(customer_id: npt.NDArray[np.object_], as_of: npt.NDArray[np.int64], cap: int) -> npt.NDArray[np.bool_]:
    """bool [n]: a uniform sample of at most `cap` rows.

    The sampling rate moves in steps of a quarter of a halving, so that a few rows more do not move it: a row's own
    hash then decides alone, and a new customer never pushes another one out.
    """
    share = shares(hashes(customer_id, as_of))
    step = 0
    kept = np.ones(len(share), dtype=np.bool_)
    while int(kept.sum()) > cap:
        step += 1
        kept = share < 2.0 ** (-step / STEPS_PER_HALVING)
    return kept
