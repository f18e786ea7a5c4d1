"""`nextbest experiment`: how large an experiment has to be, and what its outcome says."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from features.errors import GateRefused
from training.edge import Edge, command

LIFT = click.option("--lift", type=float, required=True, help="Smallest that matters: 0.1 = a tenth more take-ups.")
POWER = click.option("--power", type=float, default=0.8, show_default=True, help="Chance to find such a lift.")


@click.group()
def experiment() -> None:
    """Experiments with arms: plan one, and read its outcome."""


@command(experiment, "plan", "nextbest experiment plan --baseline 0.02 --lift 0.1 --control-share 0.1")
@click.option("--baseline", type=float, required=True, help="Take-up rate without the treatment: 0.02 = 2 %.")
@LIFT
@click.option("--control-share", type=float, default=0.5, show_default=True, help="Of all customers.")
@POWER
def experiment_plan(edge: Edge, baseline: float, lift: float, control_share: float, power: float) -> None:
    """How many customers control and treatment need to find a lift that large."""
    from training.experiment import size

    found = size(baseline, lift, control_share, power)
    edge.answer(
        asdict(found),
        f"{found.control:,} customers in control and {found.treated:,} treated find a lift of {lift:.1%} over "
        f"{baseline:.2%} with probability {found.power:.1%}",
    )


@command(experiment, "read", "nextbest experiment read --control 10000 200 --treated 90000 2100 --lift 0.1")
@click.option("--control", type=(int, int), required=True, metavar="CUSTOMERS TAKE_UPS")
@click.option("--treated", type=(int, int), required=True, metavar="CUSTOMERS TAKE_UPS")
@LIFT
@POWER
@click.option("--baseline", type=float, help="Take-up rate it was planned with. Default: that of the control arm.")
def experiment_read(
    edge: Edge, control: tuple[int, int], treated: tuple[int, int], lift: float, power: float, baseline: float | None
) -> None:
    """The lift with its interval; exit code 3 where the arms are too small to have found one that matters."""
    from training.experiment import Arm, read

    found = read(Arm(*control), Arm(*treated), lift, power, baseline)
    told = found.reason
    if found.lift:
        told = f"lift {found.lift.value:+.1%}, 95 % interval {found.lift.low:+.1%} to {found.lift.high:+.1%}"
    edge.answer(asdict(found), told)
    if found.lift is None:
        sys.exit(GateRefused.exit_code)
