"""Pictures for the page of monitoring: a column then and now, calibration by week, layers that leave nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from training.monitoring.decay import LEAST, MOST
from training.monitoring.underserved import LAYERS
from training.plots import ACCENT, INK, PALE, figure, svg

if TYPE_CHECKING:
    from training.monitoring.decay import Decay
    from training.monitoring.drift import Drift
    from training.monitoring.underserved import Underserved

BAD = "#e8590c"
SMALLEST = 0.005
"""Share of customers: smaller bins are not drawn."""
WIDTH = 4.8
"""Inches: texts of a picture can still be read on a phone."""


def drift_figure(one: Drift, name: str) -> str:
    """Shares of the bins of one column, when the model was judged and now, as SVG."""
    drawn, axes = figure(WIDTH, 2.9)
    keep = [place for place in range(len(one.labels)) if max(one.then[place], one.present[place]) >= SMALLEST]
    at = np.arange(len(keep))
    axes.bar(at - 0.2, [one.then[place] for place in keep], 0.4, color=PALE, label="when judged")
    axes.bar(at + 0.2, [one.present[place] for place in keep], 0.4, color=BAD, label="now")
    axes.set_xticks(at, [_short(one.labels[place]) for place in keep], rotation=35, ha="right", fontsize=8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.tick_params(axis="y", labelsize=9)
    axes.legend(frameon=False, fontsize=9)
    return svg(drawn, name, f"{one.name}: share of customers in each bin; most moved {one.most_moved}")


def weeks_figure(one: Decay, name: str) -> str:
    """Observed over expected take-ups by week, with the bounds within which it is as good as calibrated, as SVG."""
    drawn, axes = figure(WIDTH, 3.1)
    weeks = [week for week in one.weeks if week.expected > 0]
    at = np.arange(len(weeks))
    value = np.array([week.value for week in weeks])
    low, high = (np.array([getattr(week, end) for week in weeks]) for end in ("low", "high"))
    floor = min(0.25, float(np.min(value[value > 0], initial=1.0)) / 2)
    shown, least = np.maximum(value, floor), np.maximum(low, floor)
    axes.axhspan(LEAST, MOST, color="#e7f1f4", zorder=0)
    axes.axhline(1.0, color=PALE, linewidth=1, zorder=1)
    for place, week in enumerate(weeks):
        color = BAD if week.off else ACCENT
        axes.plot([place, place], [least[place], high[place]], color=color, linewidth=2)
        axes.plot([place], [shown[place]], marker="o", color=color, markersize=6)
    axes.set_yscale("log")
    ticks = [tick for tick in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64) if floor <= tick <= max(high, default=1) * 1.3]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    every = max(1, len(weeks) // 6)
    axes.set_xticks(at[::every], [week.name[5:] for week in weeks[::every]], fontsize=9)
    axes.set_xlim(-0.6, len(weeks) - 0.4)
    axes.set_xlabel("week from (month-day)", fontsize=9, color=INK)
    axes.set_ylabel("observed / expected", fontsize=9, color=INK)
    told = ", ".join(f"{week.name} {week.value:.2f}" for week in weeks)
    return svg(drawn, name, f"Observed over expected take-ups by week: {told}")


def layers_figure(one: Underserved, name: str) -> str:
    """Customers that each layer leaves nothing, or nothing likely, as SVG."""
    drawn, axes = figure(WIDTH * 1.5, 3.0)
    at = np.arange(len(LAYERS))
    none = np.array([one.none[layer] for layer in LAYERS])
    tiny = np.array([one.tiny[layer] for layer in LAYERS])
    axes.barh(at, none, color=ACCENT, label="no action is left")
    axes.barh(at, tiny, left=none, color=PALE, label="only unlikely ones are left")
    for place, total in enumerate(none + tiny):
        axes.text(total, place, f" {total:,}", va="center", fontsize=9, color=INK)
    axes.set_yticks(at, LAYERS, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, float(max(none + tiny)) * 1.15)
    axes.set_xlabel("customers", fontsize=9, color=INK)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    told = ", ".join(f"{layer} {count}" for layer, count in zip(LAYERS, none + tiny, strict=True) if count)
    return svg(drawn, name, f"Under-served customers by layer: {told}")


def _short(label: str) -> str:
    return label.replace("up to", "≤").replace("above", ">").replace(" to ", " – ")
