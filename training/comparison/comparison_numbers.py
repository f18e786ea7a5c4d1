"""Numbers as the comparison page prints them: signs, intervals, shares, costs with their units."""

from __future__ import annotations

import math
import re

from training.bootstrap import Interval

COSTS = {
    "latency_ms_p50": ("Latency, median", "ms"),
    "latency_ms_p99": ("Latency, 99th percentile", "ms"),
    "model_bytes": ("Size of the model", "bytes"),
    "train_seconds": ("Training, the whole run", "s"),
    "fit_seconds": ("Training, fitting", "s"),
    "peak_memory_mb": ("Memory, at most", "MB"),
}
_HASH = re.compile(r"[0-9a-f]{32,}(\+changes)?")


def cost_name(name: str) -> str:
    return COSTS.get(name, (name.replace("_", " "), ""))[0]


def cost_text(name: str, value: float) -> str:
    """With its unit; sizes in kB or MB."""
    if math.isnan(value):
        return "not measured"
    unit = COSTS.get(name, ("", ""))[1]
    if unit == "bytes":
        return f"{value / 1e6:,.2f} MB" if value >= 1e6 else f"{value / 1e3:,.1f} kB"
    return f"{value:,.3g} {unit}".strip() if value < 100 else f"{value:,.0f} {unit}".strip()


def metric_text(value: float) -> str:
    return minus(f"{value:.4f}")


def interval_text(one: Interval) -> str:
    """ "+0.0120 [+0.0041, +0.0193]" """
    return minus(f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]")


def points(one: Interval) -> str:
    """A share's difference, per hundred."""
    return minus(f"{100 * one.mean:+.2f} [{100 * one.low:+.2f}, {100 * one.high:+.2f}]")


def spoken(one: Interval, plain: bool = False) -> str:
    """For a screen reader; plain: no difference, so without a sign."""
    sign = "" if plain else "+"
    return minus(f"{one.mean:{sign}.4f}, from {one.low:{sign}.4f} to {one.high:{sign}.4f}")


def percent(share: float) -> str:
    return "" if math.isnan(share) else f"{share:.1%}".replace("%", "\N{NO-BREAK SPACE}%")


def ratios(one: Interval) -> str:
    """ "0.92 [0.85, 1.01]" """
    return "too few" if math.isnan(one.mean) else f"{one.mean:.2f} [{one.low:.2f}, {one.high:.2f}]"


def minus(text: str) -> str:
    """A minus sign before a number, where a program writes a hyphen."""
    return re.sub(r"(?<![\w-])-(?=[\d.])", "−", text)


def short(value: str | None) -> str:
    """Hashes by their first twelve characters."""
    if value is None:
        return "not recorded"
    return f"{value[:12]}…{'+changes' if value.endswith('+changes') else ''}" if _HASH.fullmatch(value) else value
