"""A table of decisions from anywhere, as a log that off-policy estimators read: Parquet or CSV.

Two forms. One row per decision:

reward            what was earned, any unit
propensity        probability with which the logging policy took exactly what it took, 0 < p <= 1
target_propensity probability with which the policy in question would have taken the same, 0 <= p <= 1
customer_id       optional; decisions of one customer are not independent. Without it each row is a customer
predicted, predicted_target   optional, together: a model's reward of what was taken, and of what the policy in question
                  would have done (Σ π q); by a model that has not seen these rewards. For dm, dr, switch-dr, dros

One row per candidate of a decision, recognised by `decision_id`; what was never tried is known then, and mips works:

decision_id, candidate   which decision, and which of the things that it could have done; once each
taken             true for exactly one candidate of a decision
logged, target    probability of the candidate under both policies; `logged` null where it is not known, but never for
                  the taken one
reward            on the row of the taken candidate; not read elsewhere
customer_id, predicted   optional, as above; `predicted` for every candidate

Any other column may group decisions (`by`) or be the action's feature (`feature`, one row per candidate only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.columns import CUSTOMER_ID
from features.errors import InputError
from features.schema import Bool, Float64, Texts
from training.policies.decision_log import DecisionLog

DECISION_ID, CANDIDATE, TAKEN, LOGGED, TARGET = "decision_id", "candidate", "taken", "logged", "target"
REWARD, PROPENSITY, TARGET_PROPENSITY = "reward", "propensity", "target_propensity"
PREDICTED, PREDICTED_TARGET = "predicted", "predicted_target"
_PER_DECISION = (REWARD, PROPENSITY, TARGET_PROPENSITY)
_PER_CANDIDATE = (DECISION_ID, CANDIDATE, TAKEN, LOGGED, TARGET, REWARD)
_TRUE, _FALSE = frozenset({"true", "1", "1.0", "yes"}), frozenset({"false", "0", "0.0", "no"})


@dataclass(frozen=True)
class DecisionTable:
    """log: n decisions. groups: [n], the values of the column `by`; None where none was named."""

    log: DecisionLog
    groups: Texts | None


def read_table(path: Path, by: str | None = None, feature: str | None = None) -> DecisionTable:
    """Read a table of either form. InputError names the column, the rule, and the first row that breaks it (from 1)."""
    frame = _frame(path)
    long = DECISION_ID in frame and CANDIDATE in frame
    _need(frame, _PER_CANDIDATE if long else _PER_DECISION, path)
    for option, column in (("--by", by), ("--feature", feature)):
        if column is not None and column not in frame:
            raise InputError(f"{option} is a column of {path}, however it has no {column}; it has {_listed(frame)}")
    if not len(frame):
        raise InputError(f"a decision table has a row for each decision or more, however {path} has none")
    if long:
        return _of_candidates(frame, by, feature)
    if feature is not None:
        raise InputError(
            f"--feature needs one row per candidate ({', '.join(_PER_CANDIDATE)}), however {path} has one per decision"
        )
    return _of_decisions(frame, by)


def _of_decisions(frame: pd.DataFrame, by: str | None) -> DecisionTable:
    """A log of two candidates a decision: what was taken, and all the rest, of which nothing is known."""
    n = len(frame)
    reward = _numbers(frame, REWARD)
    propensity = _probabilities(frame, PROPENSITY, above_zero=True)
    target = _probabilities(frame, TARGET_PROPENSITY)
    log = DecisionLog(
        customer_id=_customers(frame, np.arange(n)),
        reward=reward,
        candidates=np.full(n, 2),
        taken=np.zeros(n, dtype=np.int64),
        logged=np.stack([propensity, np.full(n, np.nan)], axis=1).ravel(),
        target=np.stack([target, 1.0 - target], axis=1).ravel(),
        predicted=_two_predictions(frame, target),
    )
    return DecisionTable(log, None if by is None else _texts(frame, by))


def _two_predictions(frame: pd.DataFrame, target: Float64) -> Float64 | None:
    """Float64 [2 n]: of what was taken, and that of the rest with which the policy's mean is `predicted_target`."""
    given = [name for name in (PREDICTED, PREDICTED_TARGET) if name in frame]
    if not given:
        return None
    if len(given) == 1:
        raise InputError(
            f"{PREDICTED} (a model's reward of what was taken) and {PREDICTED_TARGET} (of what the policy in question "
            f"would have done) go together, however there is only {given[0]}; add the other, or leave both out"
        )
    taken, mean = _numbers(frame, PREDICTED), _numbers(frame, PREDICTED_TARGET)
    rest = 1.0 - target
    gap = np.abs(mean - taken) > 1e-9 * np.maximum(1.0, np.abs(taken))
    _refuse(
        (rest == 0.0) & gap,
        f"{PREDICTED_TARGET} equals {PREDICTED} where {TARGET_PROPENSITY} is 1",
        frame[PREDICTED_TARGET],
    )
    other = np.where(rest > 0.0, (mean - target * taken) / np.where(rest > 0.0, rest, 1.0), 0.0)
    return np.stack([taken, other], axis=1).ravel()


def _of_candidates(frame: pd.DataFrame, by: str | None, feature: str | None) -> DecisionTable:
    for column in (DECISION_ID, CANDIDATE):
        _refuse(frame[column].isna().to_numpy(), f"{column} is never empty", frame[column])
    decisions = pd.factorize(frame[DECISION_ID])[0]
    frame = frame.iloc[np.argsort(decisions, kind="stable")]
    twice = frame.duplicated([DECISION_ID, CANDIDATE]).to_numpy()
    _refuse(twice, f"{CANDIDATE} is named once in its decision", frame[CANDIDATE])
    decision = pd.factorize(frame[DECISION_ID])[0]
    taken = _flags(frame, TAKEN)
    times = np.bincount(decision, weights=taken)[decision]
    _refuse(times != 1.0, f"{TAKEN} is true for exactly one candidate of a decision", frame[DECISION_ID])
    chosen = np.flatnonzero(taken)  # one per decision, in order
    candidates = np.bincount(decision)
    logged = _numbers(frame, LOGGED, null=True)
    known = ~np.isnan(logged)
    _refuse(known & ((logged < 0) | (logged > 1)), f"{LOGGED} lies in 0..1", frame[LOGGED])
    _refuse(taken & ~(known & (logged > 0)), f"{LOGGED} of what was taken is known and above 0", frame[LOGGED])
    log = DecisionLog(
        customer_id=_customers(frame.iloc[chosen], np.arange(len(chosen))),
        reward=_numbers(frame.iloc[chosen], REWARD),
        candidates=candidates,
        taken=chosen - np.concatenate([[0], np.cumsum(candidates)[:-1]]),
        logged=logged,
        target=_probabilities(frame, TARGET),
        predicted=_numbers(frame, PREDICTED) if PREDICTED in frame else None,
        feature=None if feature is None else pd.factorize(_texts(frame, feature))[0].astype(np.int64),
    )
    return DecisionTable(log, None if by is None else _texts(frame.iloc[chosen], by))


def _frame(path: Path) -> pd.DataFrame:
    """Every column as it is in the file; its index counts rows from 1."""
    if not path.is_file():
        raise InputError(f"a decision table is a Parquet or CSV file, however there is none at {path}")
    try:
        if path.suffix.lower() == ".csv":
            frame = pd.read_csv(path, float_precision="round_trip", dtype={DECISION_ID: str, CUSTOMER_ID: str})
        else:
            frame = pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pyarrow's and pandas' own errors are ValueErrors
        raise InputError(
            f"a decision table is a Parquet or CSV file, however {path} cannot be read: {error}"
        ) from error
    return frame.set_axis(pd.RangeIndex(1, len(frame) + 1))


def _need(frame: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    missing = [name for name in columns if name not in frame]
    if missing:
        raise InputError(
            f"a decision table has, one row per decision, {', '.join(_PER_DECISION)}, or, one row per candidate, "
            f"{', '.join(_PER_CANDIDATE)}; however {path} lacks {', '.join(missing)} (it has {_listed(frame)})"
        )


def _customers(frame: pd.DataFrame, each: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Texts:
    return _texts(frame, CUSTOMER_ID) if CUSTOMER_ID in frame else each.astype(str).astype(object)


def _texts(frame: pd.DataFrame, column: str) -> Texts:
    _refuse(frame[column].isna().to_numpy(), f"{column} is never empty", frame[column])
    return frame[column].astype(str).to_numpy(dtype=object)


def _numbers(frame: pd.DataFrame, column: str, null: bool = False) -> Float64:
    """Float64 [n] of a column, finite; NaN only where `null` allows it."""
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(values) & ~(frame[column].isna().to_numpy() if null else np.zeros(len(values), dtype=np.bool_))
    _refuse(wrong, f"{column} is a finite number", frame[column])
    return values


def _probabilities(frame: pd.DataFrame, column: str, above_zero: bool = False) -> Float64:
    values = _numbers(frame, column)
    low = values <= 0 if above_zero else values < 0
    _refuse(
        low | (values > 1), f"{column} lies {'above 0 and at most at 1' if above_zero else 'in 0..1'}", frame[column]
    )
    return values


def _flags(frame: pd.DataFrame, column: str) -> Bool:
    words = frame[column].astype(str).str.strip().str.lower()
    yes = words.isin(_TRUE).to_numpy()
    _refuse(~yes & ~words.isin(_FALSE).to_numpy(), f"{column} is true or false (or 1 or 0)", frame[column])
    return np.asarray(yes)


def _refuse(wrong: Bool, rule: str, values: pd.Series[Any]) -> None:
    """InputError naming the first row that breaks the rule."""
    if wrong.any():
        first = int(np.argmin(np.where(wrong, values.index.to_numpy(), np.iinfo(np.int64).max)))
        raise InputError(
            f"{rule}; however {int(wrong.sum()):,} rows break it, the first is row {values.index[first]} with "
            f"{values.iloc[first]}; correct the table"
        )


def _listed(frame: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in frame.columns)
