"""The sequence model beside the families that it has to beat, on the same rows, and what each of them costs."""

from __future__ import annotations

from collections.abc import Mapping

from features.schema import Float64
from training.contenders import Contender
from training.dataset import Dataset
from training.evaluate import PRIOR, Comparison, baselines, clearly_better, clearly_worse, compare, primary_metric
from training.sequence.fit_sequence import FittedSequence, Settings
from training.sequence.machine import Machine
from training.sequence.sequence_model import FAMILY, SequenceModel
from training.sequence.tokens import Tokens

TREES = "lightgbm"
RIVALS = (PRIOR, TREES)


def said_of(
    model: SequenceModel, rivals: Mapping[str, Contender], learned: Dataset, part: Dataset, tokens: Tokens
) -> dict[str, Float64]:
    """Probabilities of the rows of `part`, float64 [n, m] each: of counting, the rivals and the model."""
    said = baselines(learned, part)
    said |= {name: rival.model.probabilities(part.rows, part.available) for name, rival in rivals.items()}
    answered = model.answers(tokens, part.customer_id, part.spine.as_of, part.rows)
    return said | {FAMILY: answered.probabilities(part.rows, part.available)}


def side_by_side(said: Mapping[str, Float64], part: Dataset, seed: int) -> dict[str, Comparison]:
    """The model and each rival against the prior and counting, and the model against the trees too."""
    counted = tuple(name for name in said if name not in (FAMILY, *RIVALS))
    against = dict.fromkeys(RIVALS, (PRIOR, *counted)) | {FAMILY: (*RIVALS, *counted)}
    return {
        name: compare(name, {one: said[one] for one in (name, *others)}, part, seed, others)
        for name, others in against.items()
    }


def spending(
    fitted: FittedSequence, again: FittedSequence, rivals: Mapping[str, Contender], settings: Settings, machine: Machine
) -> dict[str, float]:
    """What it cost to fit, and how fast training went; of the rivals, the seconds of one fit.

    share_of_peak: of the chip's operations per second, where it is known.
    """
    spent = {"fit_seconds": fitted.seconds + again.seconds, "first_fit_seconds": fitted.seconds}
    spent |= {"events_per_second": fitted.events_per_second, "rows_per_second": fitted.rows_per_second}
    spent |= {f"{name}_fit_seconds": rival.fitted.seconds for name, rival in rivals.items()}
    share = fitted.utilisation(machine, settings.length)
    return spent if share is None else spent | {"share_of_peak": share}


def findings(found: Comparison, test: Dataset, spent: Mapping[str, float]) -> tuple[str, ...]:
    """In words: whether the model is surely better than its rivals, and how many times as long its fit took."""
    metric = primary_metric(test)
    told = []
    for rival in reversed(RIVALS):
        gap = found.differences[rival][metric]
        word = "not surely different from"
        if clearly_better(metric, gap) or clearly_worse(metric, gap):
            word = "surely better than" if clearly_better(metric, gap) else "surely worse than"
        told.append(f"{FAMILY} is {word} {rival} on test, {metric} {gap.told()}")
    times = spent["first_fit_seconds"] / max(spent[f"{TREES}_fit_seconds"], 1e-9)
    return (*told, f"its fit took {times:.1f} times as long as that of {TREES}")
