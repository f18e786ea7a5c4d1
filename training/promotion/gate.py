"""The gate: may a challenger become the champion? Every rule, what was measured, what is allowed, and why.

Absolute checks always hold. Relative ones compare with the champion, row by row, in rows that neither has learned from,
with intervals by customer; they do not count where there is no champion, or where it cannot answer any more. A check
that could not be made is not evidence: it is told as "not counted", neither passed nor refused.

During a run, `leak.keep(run, test, importance)` keeps what only the rows can tell; when it has finished and is
registered, `decide(tracking, model, run_id)` judges it from its artefacts alone, and so does `nextbest promote`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from features.errors import ArtefactError, InputError
from serving.registry import CHAMPION
from training.evaluate import PRIOR
from training.finished import FinishedRun
from training.predictions import MODEL
from training.promotion.candidate import Candidate
from training.promotion.gate_absolute import absolute
from training.promotion.gate_relative import relative
from training.promotion.model_card import CARD_FILE, model_card
from training.promotion.verdict import Check, Verdict, check, not_counted

if TYPE_CHECKING:
    from training.track import Tracking

__all__ = ["Candidate", "Check", "Verdict", "champion_candidate", "decide", "judge_promotion", "verdict_of"]

VERDICT_FILE = "gate/verdict.json"
GATE_TAG = "nextbest.gate"
REASONS_TAG = "nextbest.gate_reasons"


def judge_promotion(challenger: Candidate, champion: Candidate | None, seed: int = 0) -> Verdict:
    """Every check of the challenger, against the champion where there is another. The same seed, the same verdict."""
    checks = absolute(challenger, seed)
    if champion is not None and champion.run_id == challenger.run_id and champion.name == challenger.name:
        champion = None
    if champion is not None:
        checks = (*checks, *relative(challenger, champion, seed))
    if not any(one.passed for one in checks if one.name != "artefact"):
        checks = (*checks, check("evidence", False, 0, 1, "nothing of it could be measured; train again"))
    passed = all(one.passed is not False for one in checks)
    return Verdict(passed, checks, challenger.run_id, None if champion is None else champion.run_id)


def decide(tracking: Tracking, model: str, run_id: str, seed: int = 0, known_before: Sequence[str] = ()) -> Verdict:
    """Judge the finished run against the present champion of `model`, from artefacts alone; moves no alias.

    known_before: columns of which a person knows that they are no leak.

    The verdict is kept with the run: gate/verdict.json, the tags nextbest.gate (passed, refused) and
    nextbest.gate_reasons, and a new card.md. Raises InputError, ArtefactError where the run cannot be read.
    """
    run = FinishedRun.open(tracking, run_id)
    challenger = Candidate.of(run)
    if challenger.leaks is not None and known_before:
        challenger = replace(challenger, leaks=challenger.leaks.vouched(known_before))
    champion = champion_candidate(tracking, model)
    verdict = judge_promotion(challenger, champion, seed)
    standing = tracking.named(model, CHAMPION)
    if champion is None and standing is not None:
        why = f"version {standing[0]} keeps nothing to compare with: what is measured alone decides"
        verdict = replace(verdict, checks=(*verdict.checks, not_counted("champion", why)))
    tracking.client.log_text(run_id, verdict.to_json(), VERDICT_FILE)
    tracking.client.log_text(run_id, model_card(run, challenger, verdict, seed), CARD_FILE)
    tracking.client.set_tag(run_id, GATE_TAG, verdict.word)
    tracking.client.set_tag(run_id, REASONS_TAG, verdict.reasons)
    return verdict


def champion_candidate(tracking: Tracking, model: str) -> Candidate | None:
    """What the alias `champion` names; None where it names nothing, or nothing whose run can be read any more."""
    from training.track import PRIOR_FOLDER

    named = tracking.named(model, CHAMPION)
    if named is None:
        return None
    version, run_id, folder = named
    try:
        found = Candidate.of(FinishedRun.open(tracking, run_id))
    except (ArtefactError, InputError):
        return None
    return replace(found, version=version, name=PRIOR if folder == PRIOR_FOLDER else MODEL)


def verdict_of(run: FinishedRun) -> Verdict | None:
    """The verdict that is kept with the run; None where none is."""
    try:
        return Verdict.from_json(run.artefact(VERDICT_FILE).read_text(encoding="utf-8"))
    except ArtefactError:
        return None
