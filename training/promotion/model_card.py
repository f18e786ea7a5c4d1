"""The model card: what a model is for, what it learned from, how good and how fair it is, where it ends (card.md).

After Mitchell et al. 2019, "Model cards for model reporting". Everything in it comes from the run's own artefacts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from training import metrics
from training.bootstrap import Interval
from training.evaluate import PRIOR
from training.finished import FinishedRun
from training.plan import CHANNEL_CHOICE, NEXT_BEST_PRODUCT
from training.predictions import CHAMPION
from training.promotion import calibrated, fairness
from training.promotion.candidate import Candidate
from training.promotion.verdict import Verdict
from training.targeting import KS, PR_AUC

CARD_FILE = "card.md"
PURPOSE = {
    NEXT_BEST_PRODUCT: "which product a customer takes up next, within the horizon, among those that may be offered",
    CHANNEL_CHOICE: "which channel works for a customer: the answer to a message on it, or the next touch",
}
SHOWN = (
    *(metrics.HR_AT_1, metrics.HR_AT_3, metrics.MAP_AT_7, metrics.NDCG_AT_7, metrics.MRR, metrics.LOG_LOSS),
    *(metrics.BRIER, metrics.AUC, metrics.AUC_BY_CANDIDATE, PR_AUC, KS, metrics.ECE, metrics.WORST_GAP),
)
LINEAGE = ("git_commit", "lock_sha256", "nextbest.data", "nextbest.features", "nextbest.row_schema")
MOST_COLUMNS = 10


def model_card(run: FinishedRun, one: Candidate, verdict: Verdict, seed: int = 0) -> str:
    """The card of a finished run, Markdown."""
    params = run.params
    name = params.get("model", "model")
    sections = [
        [f"# {name}: {params.get('chosen_family', 'unknown family')}, run {run.id}", ""],
        _gate(verdict),
        _purpose(name, params),
        _data(params),
        _metrics(run.metrics),
    ]
    if one.predictions is not None:
        sections += [_groups(one, seed), _equal_rates(one, seed)]
    sections += [_looks_at(one), _limits(one), _costs(one.costs), _lineage(run)]
    return "\n".join(line for section in sections for line in section)


def _gate(verdict: Verdict) -> list[str]:
    beside = f"compared with run {verdict.champion}" if verdict.champion else "there was no other champion"
    rows = [(one.name, one.word, one.reason) for one in verdict.checks]
    return [f"**The gate: {verdict.word}** ({beside}).", "", *table(("rule", "", "what was found"), rows)]


def _purpose(name: str, params: Mapping[str, str]) -> list[str]:
    told = PURPOSE.get(name, "what to do for a customer")
    return [
        "## What it is for",
        "",
        f"It estimates {told} (horizon {params.get('horizon_days', '?')} days). Its probabilities are one factor of a "
        "decision; consent, contact policies, eligibility and value are decided beside it, by rules that it cannot "
        "change. It is not made for decisions on credit, prices or terms, nor for people who are no customers.",
        "",
    ]


def _data(params: Mapping[str, str]) -> list[str]:
    names = ("source", "until", "split", "attribution", "rows", "rows_train", "rows_valid", "rows_test",
             "rows_embargoed", "seed", "calibration", "rounds")  # fmt: skip
    rows = [(name.replace("_", " "), params[name]) for name in names if name in params]
    return ["## What it learned from", "", *table(("", "value"), rows)]


def _metrics(found: Mapping[str, float]) -> list[str]:
    """Test rows; differences with their 95 % intervals by customer."""
    rows = []
    for metric in SHOWN:
        if f"test/{metric}" in found:
            gaps = [_gap(found, f"test/{metric}_minus_{other}") for other in (PRIOR, CHAMPION)]
            rows.append((metric, f"{found[f'test/{metric}']:.4f}", *gaps))
    told = (
        "On the newest rows, which neither fitting nor choosing has seen. Differences with 95 % intervals, by customer."
    )
    return ["## How good it is", "", told, "", *table(("metric", "value", "minus prior", "minus champion"), rows)]


def _gap(found: Mapping[str, float], key: str) -> str:
    gap = Interval.logged(found, key)
    return "–" if gap is None else gap.told("+.4f")


def _groups(one: Candidate, seed: int) -> list[str]:
    assert one.predictions is not None
    overall = calibrated.levels(one.predictions, [one.name], seed).interval(one.name, 0)
    rows = [
        (
            f"{group.slice}: {group.group}",
            f"{group.rows:,}",
            f"{group.take_ups:,}",
            f"{group.rate:.1%}",
            interval(group.rate_ratio),
            interval(group.calibration),
        )
        for group in fairness.by_group(one.predictions, seed, one.name)
    ]
    head = ("group", "rows", "take-ups", "targeted", "rate over that of all", "predicted over seen")
    return [
        "## Groups of customers",
        "",
        f"Take-ups predicted over seen, overall: {interval(overall)}. Targeted: the {fairness.CAPACITY:.0%} of the "
        f"rows with the best probabilities. Groups of at least {fairness.FEWEST_ROWS} rows.",
        "",
        *table(head, rows),
    ]


def _equal_rates(one: Candidate, seed: int) -> list[str]:
    assert one.predictions is not None
    rows = [
        (slice_.slice, f"{slice_.reached:.1%}", f"{slice_.reached_equally:.1%}", interval(slice_.difference, "+.4f"))
        for slice_ in fairness.equal_rates(one.predictions, seed, one.name)
    ]
    head = ("slice", "take-ups reached", "with equal rates", "difference")
    return [
        "What targeting all groups of a slice at one rate would cost, as a share of take-ups:",
        "",
        *table(head, rows),
    ]


def _looks_at(one: Candidate) -> list[str]:
    if one.leaks is None:
        return []
    known = [(column.gain, column) for column in one.leaks.columns if column.gain]
    top = sorted(known, key=lambda pair: -pair[0])[:MOST_COLUMNS]
    if not top:
        return []
    rows = [(column.column, f"{gain:.1%}", f"{column.auc:.3f}") for gain, column in top]
    return ["## What it looks at", "", *table(("column", "share of the gain", "AUC alone"), rows)]


def _limits(one: Candidate) -> list[str]:
    told = [
        "It knows what customers did under the policies of the past; it does not know what a contact causes. That is "
        "what experiments and off-policy evaluation are for.",
        "Its metrics are those of the test rows. Times change: `nextbest monitor` says when they have.",
        "A customer of whom nothing is known gets what is usual.",
    ]
    if one.predictions is not None:
        few = _few(one)
        if few:
            told.append(f"Too few rows to say anything of: {', '.join(few)}.")
    return ["## Limits", "", *(f"- {line}" for line in told), ""]


def _few(one: Candidate) -> list[str]:
    assert one.predictions is not None
    data = fairness.judged(one.predictions)
    shown = {(name, group) for name, group, _ in fairness.groups(data)}
    every = ((name, str(group)) for name, groups in data.slices.items() for group in sorted(set(groups.tolist())))
    return [f"{name} {group}" for name, group in every if (name, group) not in shown]


def _costs(costs: Mapping[str, float]) -> list[str]:
    rows = [(name.replace("_", " "), f"{value:,.4g}") for name, value in sorted(costs.items())]
    return ["## What it costs", "", *table(("", "measured"), rows)] if rows else []


def _lineage(run: FinishedRun) -> list[str]:
    rows = [(name, run.tags[name]) for name in LINEAGE if name in run.tags]
    again = f"`nextbest rebuild {run.id}` trains it again and compares every metric."
    return ["## Lineage", "", again, "", *table(("", "value"), rows)]


def interval(found: Interval, form: str = ".2f") -> str:
    """ "1.02 [0.97, 1.07]"; a dash where nothing can be told."""
    if np.isnan(found.mean):
        return "–"
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table and an empty line."""
    yield _line(head)
    yield _line(["---"] * len(head))
    yield from (_line(row) for row in rows)
    yield ""


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"
