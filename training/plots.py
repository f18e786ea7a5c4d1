"""Pictures for the run: is it calibrated, does it find the takers, what does it look at."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from features.schema import Bool, Float64
from training import metrics
from training.evaluate import Judgeable
from training.targeting import curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, ACCENT, PALE = "#1f2933", "#0b7285", "#adb5bd"
STYLES: tuple[dict[str, Any], ...] = (
    {"color": ACCENT, "linewidth": 2.0},
    {"color": INK, "linestyle": "--"},
    {"color": "#e8590c", "linestyle": ":"},
)
MOST_COLUMNS = 20
CURVE = np.linspace(0, 1, 201)
"""Where curves are drawn: more points are not seen, and make a picture of texts large."""
PHONE_WIDTH, PHONE_HEIGHT = 4.8, 3.9
"""Inches: drawn at this size, texts of a page's pictures can still be read on a phone."""


def figure(width: float = 6.4, height: float = 4.8) -> tuple[Figure, Any]:
    """An empty figure with one axes; it belongs to no window system and needs no closing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    return drawn, axes


def pairs(probabilities: Float64, data: Judgeable) -> tuple[Float64, Bool]:
    """Pooled scores and outcomes [k] of the rows whose probabilities are judged."""
    judged = data.available & ~np.isnan(probabilities) & data.judged_for_probability[:, None]
    return probabilities[judged], data.taken[judged]


def reliability(probabilities: Float64, data: Judgeable, title: str) -> Figure:
    """Mean score against the share that happened, in ten bins of equal mass."""
    scores, happened = pairs(probabilities, data)
    mean, share, count = metrics.reliability(scores, happened)
    error = 1.96 * np.sqrt(np.maximum(share * (1 - share), 1e-12) / np.maximum(count, 1))
    drawn, axes = figure()
    top = float(max(np.max(mean, initial=0.0), np.max(share + error, initial=0.0), 1e-3)) * 1.05
    axes.plot([0, top], [0, top], color=PALE, linewidth=1, label="perfectly calibrated")
    marks: dict[str, Any] = {"color": ACCENT, "marker": "o", "markersize": 5, "capsize": 2}
    axes.errorbar(mean, share, yerr=error, label="bins of equal mass", **marks)
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="mean predicted probability", ylabel="share that happened")
    gaps = metrics.calibration_gaps(scores, happened)
    told = f"ECE {gaps[metrics.ECE]:.4f}, largest gap {gaps[metrics.WORST_GAP]:.4f}"
    axes.set_title(f"{title}\n{told}", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="upper left")
    return drawn


def gain(
    probabilities: Mapping[str, Float64], data: Judgeable, title: str, size: tuple[float, float] = (6.4, 4.8)
) -> Figure:
    """Share of what happened that is found in the highest scored share of the pairs, for several models."""
    drawn, axes = figure(*size)
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=1, label="at random")
    for position, (name, values) in enumerate(probabilities.items()):
        scores, happened = pairs(values, data)
        if not happened.any():
            continue
        reached, found = curve(scores, happened)
        lift = float(np.interp(0.1, reached, found)) / 0.1
        style = STYLES[position % len(STYLES)]
        reached, found = CURVE, np.interp(CURVE, reached, found)
        axes.plot(reached, found, label=f"{name} (lift in the first tenth {lift:.1f})", **style)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), ylabel="share found")
    axes.set_xlabel("share of (customer, candidate) pairs, best first")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False, loc="lower right")
    return drawn


def importance(shares: Mapping[str, float], title: str) -> Figure:
    """The columns with the largest share of the gain."""
    top = sorted(shares.items(), key=lambda item: item[1])[-MOST_COLUMNS:]
    drawn, axes = figure(8.0, 0.28 * len(top) + 1.2)
    bars = axes.barh([name for name, _ in top], [share for _, share in top], color=ACCENT)
    axes.bar_label(bars, fmt="%.3f", padding=3, color=INK, fontsize=8)
    axes.set(xlabel="share of the gain")
    axes.margins(x=0.12)
    axes.set_title(title, loc="left", fontsize=11)
    return drawn


def reliability_of_both(probabilities: Mapping[str, Float64], data: Judgeable) -> Figure:
    """Two models in one reliability plot: bins of equal mass with the 95 % interval of the share that happened."""
    drawn, axes = figure(PHONE_WIDTH, PHONE_HEIGHT)
    top = 1e-3
    for (name, values), style, mark in zip(probabilities.items(), STYLES, ("o", "s", "^"), strict=False):
        mean, share, count = metrics.reliability(*pairs(values, data))
        error = 1.96 * np.sqrt(np.maximum(share * (1 - share), 1e-12) / np.maximum(count, 1))
        top = max(top, float(np.max(mean, initial=0.0)), float(np.max(share + error, initial=0.0)))
        axes.errorbar(mean, share, yerr=error, label=name, marker=mark, markersize=5, capsize=2, **style)
    axes.plot([0, top * 1.05], [0, top * 1.05], color=PALE, linewidth=1, label="perfectly calibrated", zorder=0)
    axes.set(xlim=(0, top * 1.05), ylim=(0, top * 1.05))
    axes.set(xlabel="mean predicted probability", ylabel="share that happened")
    axes.legend(frameon=False, loc="upper left")
    return drawn


def gain_of_both(probabilities: Mapping[str, Float64], data: Judgeable) -> Figure:
    """Two models in one gain plot."""
    return gain(probabilities, data, "", (PHONE_WIDTH, PHONE_HEIGHT))


def svg(drawn: Figure, name: str, alt: str) -> str:
    """The figure as an SVG element for a page: texts stay texts, ids begin with `name`, `alt` says what it shows."""
    from matplotlib import rc_context

    file = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawn.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = file.getvalue()
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", text)
    described = f'<svg role="img" aria-label="{html.escape(alt, quote=True)}" '
    return re.sub(r'\s(width|height)="[\d.]+pt"', "", text, count=2).replace("<svg ", described, 1)
