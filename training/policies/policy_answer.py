"""An evaluation as it is told: as a document for machines, as lines for a person, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from training.bootstrap import Interval
from training.policies.decision_log import DecisionLog
from training.policies.off_policy import Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

PREFERRED = ("dr", "snips", "ips", "mips")
"""Of several estimates of one group the first of these that there is, is told."""
BINS = 30


def document(found: Evaluation) -> dict[str, Any]:
    """JSON-ready: overlap, the reasons for which estimates are withheld, and the estimates with their intervals."""
    return {
        "decisions": found.overlap.decisions,
        "logged": {**vars(found.logged_value)},
        "overlap": {name: value for name, value in vars(found.overlap).items() if value == value},
        "withheld": list(found.overlap.reasons),
        "caution": found.overlap.caution,
        "estimates": {
            name: {**vars(one.interval), "bernstein": one.bernstein} for name, one in found.estimates.items()
        },
    }


def lines(target: str, unit: str, found: Evaluation, left_out: Mapping[str, int]) -> list[str | Table]:
    """What a person reads: a table of the estimates, how much the log can tell, what was left out or withheld."""
    from training.terminal import table

    rows = [("as logged", *_told(found.logged_value))]
    rows += [(f"{target}, {name}", *_told(one.interval)) for name, one in found.estimates.items()]
    overlap = found.overlap
    never = "" if overlap.partly else f", never tried {overlap.unsupported:.2%}"
    return [
        table(f"{unit} per decision", ("policy", "value", "95 % interval"), rows),
        f"{overlap.decisions:,} decisions, effective sample size {overlap.effective_size:,.0f}, largest weight "
        f"{overlap.largest_weight:,.1f}{never}",
        *(f"left out: {count:,}, because {why}" for why, count in left_out.items() if count),
        *(f"withheld: {reason}" for reason in overlap.reasons),
        *([overlap.caution] if overlap.caution else []),
    ]


def by_group(column: str, found: Mapping[str, Evaluation]) -> Table:
    """One row per group: how much there is, and its estimate or that there is none."""
    from training.terminal import table

    rows = []
    for name, one in found.items():
        chosen = next((which for which in (*PREFERRED, *one.estimates) if which in one.estimates), None)
        told = ("withheld", "") if chosen is None else _told(one.estimates[chosen].interval)
        size = (f"{one.overlap.decisions:,}", f"{one.overlap.effective_size:,.0f}", f"{one.logged_value.mean:.4g}")
        rows.append((name, *size, chosen or "", *told))
    columns = (column, "decisions", "effective", "as logged", "estimator", "value", "95 % interval")
    return table(f"by {column}", columns, rows)


def picture(log: DecisionLog, found: Evaluation, target: str, unit: str) -> Figure:
    """Left: every estimate with its interval, beside what was earned; right: how the weights are spread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from training.plots import INK

    drawn = Figure(figsize=(10.0, 4.4), layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK)
    _draw_estimates(left, found, target, unit)
    _draw_weights(right, log, found)
    return drawn


def _draw_estimates(axes: Any, found: Evaluation, target: str, unit: str) -> None:
    from training.plots import ACCENT, INK, PALE

    every: Sequence[tuple[str, Interval]] = [
        ("as logged", found.logged_value),
        *((name, one.interval) for name, one in found.estimates.items()),
    ]
    for place, (name, one) in enumerate(reversed(every)):
        colour = INK if name == "as logged" else ACCENT
        error = [[max(one.mean - one.low, 0.0)], [max(one.high - one.mean, 0.0)]]
        axes.errorbar(one.mean, place, xerr=error, color=colour, marker="o", markersize=6, capsize=3, linewidth=2)
        axes.annotate(f"{one.mean:.4g}", (one.mean, place), (0, 7), textcoords="offset points", ha="center", color=INK)
    axes.axvline(found.logged_value.mean, color=PALE, linewidth=1, zorder=0)
    axes.set(yticks=range(len(every)), yticklabels=[name for name, _ in reversed(every)], xlabel=f"{unit} per decision")
    axes.set_ylim(-0.6, len(every) - 0.3)
    axes.set_title(f"{target}\nvalue with 95 % intervals; the line: as logged", loc="left", fontsize=11)
    if found.overlap.reasons:
        import textwrap

        told = "\n".join(textwrap.fill(f"withheld: {reason}", 52) for reason in found.overlap.reasons)
        axes.text(0.02, 0.96, told, transform=axes.transAxes, va="top", fontsize=9, color="#c92a2a")
        axes.set_ylim(-0.6, 3.0)


def _draw_weights(axes: Any, log: DecisionLog, found: Evaluation) -> None:
    from training.plots import ACCENT, INK, PALE

    weight = log.weight[log.weight > 0]
    if len(weight):
        low, high = float(weight.min()), float(weight.max())
        edges = np.geomspace(low * 0.95, high * 1.05, BINS + 1)
        for label, mass, style in (
            ("share of the decisions", np.full(len(weight), 1.0 / len(log)), {"color": PALE}),
            ("share of all weight", weight / weight.sum(), {"color": ACCENT, "histtype": "step", "linewidth": 2.0}),
        ):
            axes.hist(weight, edges, weights=mass, label=label, **style)
        axes.set_xscale("log")
        axes.axvline(1.0, color=INK, linewidth=1, linestyle=":")
        axes.legend(frameon=False, loc="best")
    zero = 1.0 - len(weight) / len(log)
    overlap = found.overlap
    axes.set(xlabel="weight: probability under the policy in question / as logged", ylabel="share in bin")
    axes.set_title(
        f"effective sample size {overlap.effective_size:,.0f} of {overlap.decisions:,}\n"
        f"largest weight {overlap.largest_weight:,.1f}, weight 0 at {zero:.0%}",
        loc="left",
        fontsize=11,
    )


def _told(interval: Interval) -> tuple[str, str]:
    return f"{interval.mean:.4g}", f"{interval.low:.4g} to {interval.high:.4g}"
