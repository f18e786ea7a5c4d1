"""What the agent earns over the other arms: take-ups per customer, read as an experiment.

A unit is a customer in a period, in whose arm it stays (`serving.arms`); it took up where any product was taken up
within the window after its first decision, whoever offered it, for the holdout is offered nothing. Units of one
customer in several periods count as different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from features.arbitration import ARMS, Arms
from features.columns import CUSTOMER_ID
from features.errors import InputError
from serving.arms import EPOCH, period
from training.experiment import Arm, Reading, read
from training.labels import take_ups
from training.monitoring.served_log import Decided
from training.spine import taken_within

if TYPE_CHECKING:
    from features.importing import Bank

AGENT = "agent"


@dataclass(frozen=True)
class ArmLift:
    """arms: arm → customers and those that took up. readings: arm → the agent's lift over it, or why there is none.

    open: units whose window had not closed.
    """

    arms: dict[str, Arm]
    readings: dict[str, Reading]
    open: int


def arm_lift(
    found: Sequence[Decided], bank: Bank, declared: Arms, end: int, window: int, smallest_lift: float
) -> ArmLift:
    """found: decisions, oldest first. end: µs until which take-ups are told. window: µs.

    smallest_lift: 0.1 = a tenth more take-ups; arms too small to find it give no lift.
    """
    units = pd.DataFrame(
        {
            CUSTOMER_ID: pd.Series([one.customer_id for one in found], dtype=object),
            "at": pd.Series([one.at for one in found], dtype="int64"),
            "arm": pd.Series([one.arm for one in found], dtype=object),
            "period": [period(declared, EPOCH + timedelta(microseconds=one.at)) for one in found],
        }
    ).drop_duplicates([CUSTOMER_ID, "period", "arm"])
    closed = units[units["at"] + window <= end]
    at = closed["at"].to_numpy(np.int64)
    taken = taken_within(bank, take_ups(bank), closed[CUSTOMER_ID].to_numpy(dtype=object), at, at + window)
    took = pd.Series(taken.any(axis=1), index=closed.index)
    counted = {
        arm: Arm(int((closed["arm"] == arm).sum()), int(took[closed["arm"] == arm].sum()))
        for arm in ARMS
        if (closed["arm"] == arm).any()
    }
    others = [arm for arm in counted if arm != AGENT and AGENT in counted]
    readings = {arm: _read(counted[arm], counted[AGENT], smallest_lift) for arm in others}
    return ArmLift(counted, readings, len(units) - len(closed))


def _read(control: Arm, agent: Arm, smallest_lift: float) -> Reading:
    """As `training.experiment.read`; rates so small or large that no experiment would do give no lift either."""
    try:
        return read(control, agent, smallest_lift)
    except InputError as error:
        return Reading(0.0, None, str(error))
