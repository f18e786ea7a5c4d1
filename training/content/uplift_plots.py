"""Pictures of uplift: gain curves of every arm, and of what policies are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from training.bootstrap import Interval
from training.content.content_uplift import ArmUplift
from training.content.uplift_metrics import QINI
from training.plots import ACCENT, INK, PALE, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
MOST_ARMS = 12


def qini_curves(arms: Sequence[ArmUplift], unit: str, title: str) -> Figure:
    """One small gain curve per arm, against treating at random; the Qini with its interval above each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = arms[:MOST_ARMS]
    lines = max(1, -(-len(shown) // COLUMNS))
    drawn = Figure(figsize=(3.4 * COLUMNS, 2.9 * lines + 0.8), layout="constrained")
    FigureCanvasAgg(drawn)
    drawn.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    panels = drawn.subplots(lines, COLUMNS, squeeze=False, sharex=True)
    for place, axes in enumerate(panels.flat):
        axes.spines[["top", "right"]].set_visible(False)
        if place >= len(shown):
            axes.set_visible(False)
            continue
        one = shown[place]
        curve, qini = one.curves[one.main], one.found[one.main][QINI]
        axes.axhline(0, color=PALE, linewidth=0.8)
        axes.plot([0, 1], [0, curve.effect], color=INK, linestyle="--", linewidth=1, label="at random")
        axes.plot(curve.share, curve.gain, color=ACCENT, linewidth=1.8, label="by predicted uplift")
        axes.set_title(
            f"{one.arm}\nQini {qini.mean:.3g} [{qini.low:.3g}, {qini.high:.3g}]", loc="left", fontsize=9, color=INK
        )
        axes.tick_params(colors=INK, labelsize=8)
        axes.set_xlim(0, 1)
    if shown:
        panels[0, 0].legend(frameon=False, fontsize=8)
    drawn.supxlabel("share of decisions treated, highest predicted uplift first", fontsize=9, color=INK)
    drawn.supylabel(f"gain over no contact, {unit} per decision", fontsize=9, color=INK)
    return drawn


def policies(values: Mapping[str, Interval], unit: str, title: str) -> Figure:
    """What each policy is worth, with its interval."""
    drawn, axes = figure(6.4, 0.6 * len(values) + 1.4)
    names = list(values)[::-1]
    scale = max((abs(one.mean) for one in values.values()), default=0.0)
    for place, name in enumerate(names):
        one = values[name]
        axes.plot([one.low, one.high], [place, place], color=ACCENT, linewidth=2)
        axes.plot([one.mean], [place], color=ACCENT, marker="o", markersize=6)
        shown = 0.0 if abs(one.mean) < 1e-6 * scale else one.mean
        axes.annotate(f"{shown:.3g}", (one.mean, place), xytext=(0, 7), textcoords="offset points", ha="center")
    axes.axvline(0, color=PALE, linewidth=1)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.set_xlabel(f"doubly robust value, {unit} per decision, 95 % interval by customer")
    axes.set_title(title, loc="left", fontsize=11)
    return drawn
