"""What monitoring found as one HTML page: nothing is loaded, nothing runs, every number is in a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from training.monitoring import decay, drift, underserved
from training.monitoring.monitor_plots import drift_figure, layers_figure, weeks_figure
from training.monitoring.monitor_words import answers, headline, interval, lead
from training.page import render

if TYPE_CHECKING:
    from training.monitoring.arm_lift import ArmLift
    from training.monitoring.coverage import Coverage
    from training.monitoring.decay import Decay, Ratio
    from training.monitoring.drift import Drift
    from training.monitoring.monitor import Monitored
    from training.monitoring.underserved import Underserved

MOST_COLUMNS = 15
MOST_PICTURES = 6
MOST_GROUPS = 10
MOST_USED = 8
MOST_REASONS = 8
CALIBRATION = {
    decay.PRODUCTS: "Products: the probability that a customer takes it up at all",
    decay.CONTACTS: "Contacts: the probability of a take-up through the message",
}


def page(found: Monitored) -> str:
    """The whole page, with its style and pictures inside."""
    values = {
        "title": f"Monitoring: {headline(found)}",
        "headline": headline(found),
        "lead": lead(found),
        "alarms": found.alarms,
        "compared": bool(found.drift),
        "answers": answers(found),
        "not_compared": found.not_compared,
        "models": [_model(name, columns) for name, columns in found.drift.items()],
        "decays": [_decay(one) for one in found.decay],
        "arms": _arms(found.arms),
        "coverage": [_coverage(one) for one in found.coverage],
        "degraded": [(why, f"{count:,}") for why, count in list(found.degraded.items())[:MOST_REASONS]],
        "degraded_decisions": f"{found.degraded_decisions:,} of {found.decisions:,}",
        "underserved": _underserved(found.underserved),
        "bounds": {
            "moderate": drift.MODERATE,
            "large": drift.LARGE,
            "alpha": f"{drift.ALPHA:.0%}",
            "least": decay.LEAST,
            "most": decay.MOST,
            "tail": f"{underserved.TAIL:.0%}",
        },
        "read": f"{found.read:,}",
    }
    return render("monitor.html", values, styles=("monitor.css",))


def _model(name: str, columns: Sequence[Drift]) -> dict[str, Any]:
    drifted = [one for one in columns if one.drifted]
    loud = [one for one in columns if not one.drifted and one.why_not]
    tested = [one for one in columns if one.psi == one.psi]
    shown = [*drifted[:MOST_COLUMNS], *loud[: max(3, MOST_COLUMNS - len(drifted))]]
    shown = shown or tested[:5]
    return {
        "name": name,
        "customers": f"{max((one.customers for one in columns), default=0):,.0f}",
        "tested": len(tested),
        "drifted": len(drifted),
        "more": max(len(drifted) - MOST_COLUMNS, 0),
        "rows": [_column(one) for one in shown],
        "pictures": [
            {"svg": Markup(drift_figure(one, f"{_slug(name)}-{place}")), "name": one.name}
            for place, one in enumerate(drifted[:MOST_PICTURES])
        ],
    }


def _column(one: Drift) -> dict[str, str]:
    word, kind = ("drifted", "bad") if one.drifted else (one.why_not or "steady", "")
    return {
        "name": one.name,
        "what": one.what,
        "psi": f"{one.psi:.2f}",
        "usual": f"{one.usual:.2f}",
        "chance": "–" if one.moment else _chance(one.chance),
        "word": word,
        "kind": kind,
        "moved": one.most_moved,
    }


def _chance(chance: float) -> str:
    return "< 0.1%" if chance < 0.001 else f"{chance:.1%}"


def _decay(one: Decay) -> dict[str, Any]:
    return {
        "title": CALIBRATION[one.what],
        "svg": Markup(weeks_figure(one, f"weeks-{one.what}")) if one.weeks else "",
        "parts": [
            {"name": "all", "rows": [_ratio(one.whole, "all")]},
            {"name": "by week, intervals that hold together", "rows": [_ratio(week, week.name) for week in one.weeks]},
            {"name": "by arm", "rows": [_ratio(arm, arm.name.replace("_", " ")) for arm in one.arms]},
        ],
        "judged": f"{one.whole.pairs:,}",
        "open": f"{one.open:,}",
        "lost": f"{one.lost:,}" if one.lost else "",
    }


def _ratio(one: Ratio, name: str) -> dict[str, str]:
    known = one.expected > 0
    return {
        "name": name,
        "pairs": f"{one.pairs:,}",
        "expected": f"{one.expected:,.1f}",
        "observed": f"{one.observed:,}",
        "ratio": f"{one.value:.2f}" if known else "–",
        "interval": interval(one.low, one.high) if known else "–",
        "word": "off" if one.off else "",
    }


def _arms(found: ArmLift) -> list[dict[str, str]]:
    rows = []
    for name, arm in found.arms.items():
        reading = found.readings.get(name)
        told, why = "", ""
        if reading is not None and reading.lift is not None:
            told = f"{reading.lift.value:+.0%}"
            why = f"95 % interval {reading.lift.low:+.0%} to {reading.lift.high:+.0%}"
        elif reading is not None:
            told, why = "too small to tell", reading.reason
        rows.append(
            {
                "name": name.replace("_", " "),
                "customers": f"{arm.customers:,}",
                "took_up": f"{arm.took_up:,}",
                "rate": f"{arm.took_up / arm.customers:.2%}",
                "lift": told,
                "why": why,
            }
        )
    return rows


def _coverage(one: Coverage) -> dict[str, Any]:
    total = max(sum(one.counts.values()), 1)
    most = max(one.counts.values(), default=0) or 1
    used = [(name, count) for name, count in one.counts.items() if count]
    return {
        "part": one.part,
        "used": f"{one.used} of {len(one.counts)} used",
        "gini": f"exposure Gini {one.exposure_gini:.2f}" if one.exposure_gini == one.exposure_gini else "",
        "rows": [(name, f"{count:,}", f"{count / total:.1%}", round(100 * count / most, 1)) for name, count in used][
            :MOST_USED
        ],
        "rest": max(len(used) - MOST_USED, 0),
        "unused": list(one.unused[:MOST_USED]),
        "unused_more": max(len(one.unused) - MOST_USED, 0),
    }


def _underserved(one: Underserved) -> dict[str, Any]:
    return {
        "total": f"{one.total:,}",
        "customers": f"{one.customers:,}",
        "threshold": f"{one.threshold:.2%}",
        "svg": Markup(layers_figure(one, "layers")) if one.total else "",
        "layers": [
            (layer, f"{one.none[layer]:,}", f"{one.tiny[layer]:,}", LAYER_WORDS[layer]) for layer in underserved.LAYERS
        ],
        "rules": [(rule, f"{count:,}") for rule, count in list(one.rules.items())[:MOST_GROUPS]],
        "groups": [
            (slice_, group, f"{count:,}", f"{share:.1%}") for slice_, group, count, share in one.groups[:MOST_GROUPS]
        ],
    }


LAYER_WORDS = {
    underserved.LIKELIHOOD: "no product is likely, before any rule",
    underserved.ELIGIBILITY: "held already, or not for this customer",
    underserved.CONSENT: "opted out, or consent not known",
    underserved.SUITABILITY: "not affordable, or a recent complaint",
    underserved.CONTACT_POLICY: "caps and suppressions",
    underserved.CONTENT: "no text, or no usable score",
    underserved.EXPERIMENT: "control group of a product, or not let out yet",
    underserved.VALUE: "no action is worth more than silence",
}


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name)
