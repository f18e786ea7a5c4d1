"""What a person reads at the end of a command: tables of metrics and of served decisions, and what to open next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from training import metrics
from training.bootstrap import Interval
from training.plan import NEXT_BEST_PRODUCT
from training.terminal import metric_rows, table

if TYPE_CHECKING:
    from rich.table import Table

    from training.run import Report, Served
    from training.train import Trained

RANKED = (metrics.HR_AT_1, metrics.HR_AT_3, metrics.MAP_AT_7)
CHANCES = (metrics.LOG_LOSS, metrics.AUC, metrics.AUC_BY_CANDIDATE, metrics.ECE)


def trained_lines(trained: Trained) -> list[str | Table]:
    """A model's training, for a person."""
    sizes = ", ".join(f"{name} {count:,}" for name, count in trained.rows.items() if count)
    title = f"{trained.model}: test rows, by family and by counting"
    shown = (*RANKED, *CHANCES) if trained.model == NEXT_BEST_PRODUCT else CHANCES
    lines: list[str | Table] = [
        table(title, ("", *shown), metric_rows(trained.families, shown)),
        f"registered: {trained.family}, version {trained.version}; {trained.reason}",
        f"gate: {trained.verdict}",
        f"rows: {sizes}",
    ]
    lines += [f"note: {note}" for note in trained.notes]
    lines += champion_lines(trained.champion)
    return [
        *lines,
        *unseen_lines(trained.metrics),
        *cost_lines(trained.cost),
        f"run {trained.run_id}, {trained.seconds:.0f} s",
    ]


def champion_lines(found: Mapping[str, float]) -> list[str]:
    """What differs from the champion of before, on the test rows that neither has learned from."""
    lines = []
    for name in (metrics.HR_AT_3, metrics.LOG_LOSS):
        gap = Interval.logged(found, f"test/{name}_minus_champion")
        if gap is not None:
            before = found[f"test/champion/{name}"]
            lines.append(f"champion of before, {name}: {before:.4f}, difference {gap.told()}")
    return lines


def cost_lines(cost: Mapping[str, float]) -> list[str]:
    """Size, memory, rows and waiting, in one line; nothing where they were not measured."""
    parts = []
    if "model_bytes" in cost:
        parts.append(f"{cost['model_bytes'] / 1e6:.2f} MB of model")
    if "peak_memory_mb" in cost:
        parts.append(f"{cost['peak_memory_mb']:,.0f} MB of memory")
    if "rows_seconds" in cost:
        rows = f"{cost['rows_computed']:,.0f} rows computed and {cost['rows_reused']:,.0f} used again"
        parts.append(f"{rows} in {cost['rows_seconds']:.1f} s, the refit {cost['refit_seconds']:.1f} s")
    if "latency_ms_p50" in cost:
        parts.append(f"a customer waits {cost['latency_ms_p50']:.2f} ms (99 % {cost['latency_ms_p99']:.2f} ms)")
    return [f"cost: {', '.join(parts)}"] if parts else []


def unseen_lines(found: Mapping[str, float]) -> list[str]:
    """The frozen model on what lies beyond --until, where something does."""
    lines = []
    for name in (metrics.HR_AT_3, metrics.LOG_LOSS):
        for other in ("popularity", "constant", "previous_channel"):
            gap = Interval.logged(found, f"unseen/{name}_minus_{other}")
            if gap is not None:
                lines.append(f"unseen, {name}: {found[f'unseen/{name}']:.4f}, minus {other} {gap.told()}")
    return lines


def report_lines(report: Report, home: Path) -> list[str | Table]:
    """The whole job, for a person."""
    lines: list[str | Table] = []
    for trained in report.trained:
        lines += trained_lines(trained)
    lines += [f"{model} is left out: {reason}" for model, reason in report.left_out.items()]
    lines.append(served_table(report.served))
    degraded = {why for one in report.served for answer in (one.decision, one.ranking) for why in _degraded(answer)}
    lines += [f"degraded: {why}" for why in sorted(degraded)]
    serve = "nextbest serve" if home == Path(".nextbest") else f"nextbest serve --home {home}"
    customer = report.served[0].customer_id if report.served else "ID"
    body = json.dumps({"customer_id": customer})
    return [
        *lines,
        "what to open next:",
        "  nextbest ui    the runs, metrics and models in MLflow",
        f"  {serve}    the endpoint; then",
        f"  curl -s 127.0.0.1:3000/v1/decide -H 'Content-Type: application/json' -d '{body}'",
        f"  http://127.0.0.1:3000/console?customer={quote(customer, safe='')}    the customer's timeline and decisions",
    ]


def served_table(served: tuple[Served, ...]) -> Table:
    """One line per customer: what was decided, and the first products of the ranking."""
    rows = [[one.customer_id, *_action(one.decision), _ranking(one.ranking)] for one in served]
    moment = served[0].as_of if served else ""
    columns = ("customer", "decision", "channel", "text or reason", "propensity", "value", "next best products")
    return table(f"decisions of the real server, as of {moment}", columns, rows, numbers_from=len(columns))


def _action(decision: Mapping[str, Any]) -> list[object]:
    numbers = [f"{decision[name]:.3f}" for name in ("propensity", "value")]
    action = decision.get("action")
    if action is None:
        return ["no contact", None, "; ".join(one["reason"] for one in decision.get("reasons", [])), *numbers]
    return [action["product_id"], action["channel"], action["text"], *numbers]


def _degraded(answer: Mapping[str, Any]) -> list[str]:
    return [str(why) for why in answer.get("degraded_because", [])]


def _ranking(ranking: Mapping[str, Any]) -> str:
    products = ranking.get("products", [])
    return ", ".join(f"{product['product_id']} {product['probability']:.3f}" for product in products)
