"""Trying out a model artefact where it can do no harm: in a process of its own, on rows of this bank.

A damaged artefact does not always raise. LightGBM ends the process on trees that stop short, an absurd number of leaves
takes all memory, a loop never returns. So whatever is to be taken up while serving is first loaded, asked and checked
by `python -m serving.canary`, a fresh interpreter with limits on memory, output and time that says what came out:

    FOLDER/canary.json        the rows to ask about, and what the model has to fit
    FOLDER/artefacts.json     [[name of the model, its folder], ...]
    FOLDER/<number>.said      what that model said, as a digest
    FOLDER/<number>.refused   or why it must not serve

An artefact about which it says neither ended the process, or did not end.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from features.assemble import assemble
from features.columns import CUSTOMER_ID, Table
from features.errors import ArtefactError
from features.habits import Habits
from features.home import replace_text
from features.importing import Bank
from features.schema import Float64, RowSchema, State, States
from features.times import PARTS
from serving.choice import ChoiceModel
from serving.compiled import Compiled
from serving.orphans import stop_with_parent
from serving.registry import TIMING_MODEL, misfit
from serving.timing import SLOTS, TimingModel

CANARY_FILE = "canary.json"
ARTEFACTS_FILE = "artefacts.json"
MEMORY = 8 << 30
"""Bytes that a model may take while it is tried out."""
CUSTOMERS = 15
CLOCK = 5
"""Seconds by the clock per second of processor time that are waited for."""
OUTPUT = 64 << 20
"""Largest file that may be written meanwhile, the log of the process among them."""
_FEW_AND_MANY = ((0.0, 0.0, 0.0, 0.0), (30.0, 2.0, 10.0, 3.0))
"""Delivered, failed, noticed and answered messages of two customers: a new one and an old one."""

Model = ChoiceModel | TimingModel


class Customers(Protocol):
    """`features.packed.OnlineStates`."""

    def read(self, customer_ids: Sequence[str]) -> States: ...


@dataclass(frozen=True)
class Canary:
    """Customers to try a model on. states: of n of them; moments: float64 [n], seconds since 1970 UTC.

    present: the rows that this build makes, which a model has to fit.
    """

    present: RowSchema
    states: States
    moments: Float64

    @classmethod
    def of(cls, bank: Bank, present: RowSchema, customers: Customers, data_end: datetime) -> Canary:
        """Nobody, and some customers of the bank as they are in the online store, at the end of its data."""
        known = bank.tables[Table.CUSTOMERS][CUSTOMER_ID].unique().to_pylist()
        names = ["", *known[:: max(1, len(known) // CUSTOMERS)][:CUSTOMERS]]
        return cls(present, customers.read(names), np.full(len(names), data_end.timestamp()))

    def answer(self, name: str, model: Model) -> Float64:
        """What `model` says as the model called `name`: probabilities, all of them.

        ArtefactError where it answers another question, was trained on other rows, or says what is no probability.
        """
        said = self._chances(model) if isinstance(model, TimingModel) else self._probabilities(name, model)
        wrong = int((~(np.isfinite(said) & (said >= 0) & (said <= 1))).sum())
        if wrong:
            raise ArtefactError(f"{name} must give probabilities, however {wrong} of {said.size} are not; train again")
        return said

    def _probabilities(self, name: str, model: ChoiceModel) -> Float64:
        """Float64 [n, m]."""
        question, present = model.question, self.present
        known = present.products if question.block == "product" else present.channels
        if question.model != name or not set(question.candidates) <= set(known):
            raise ArtefactError(
                f"{name} must choose among {question.block}s of this build, however the artefact is "
                f"{question.model} over {', '.join(question.candidates)[:80]}; train again"
            )
        reason = misfit(model.row_schema, present)
        if reason:
            raise ArtefactError(f"{name} was {reason}")
        rows = assemble(self.states, self.moments, model.row_schema)
        if isinstance(model.scorer, Compiled):
            model.scorer.check_compiled(rows)
        return model.probabilities(rows, np.ones((len(rows), len(question.candidates)), dtype=np.bool_))

    def _chances(self, model: TimingModel) -> Float64:
        """Float64 [H · 168 · 2, 3]."""
        present = self.present
        if (model.channels, model.time_zone) != (present.channels, present.time_zone):
            raise ArtefactError("it was trained on other channels or another time zone than this build's; train again")
        count = len(model.channels)
        channel, slot, customer = (axis.ravel() for axis in np.indices((count, SLOTS, len(_FEW_AND_MANY))))
        outcomes = np.tile(np.array(_FEW_AND_MANY)[customer][:, None, :], (1, count, 1))  # [k, H, 4]
        parts = np.outer(customer, np.arange(PARTS)).astype(np.float64)  # [k, 8]
        return model.chances(channel, slot, slot % PARTS, Habits(outcomes, parts))

    @cached_property
    def text(self) -> str:
        """As JSON; equal for equal canaries."""
        states = {
            name: {"at": state.at.tolist(), "numbers": state.numbers.tolist(), "texts": state.texts.tolist()}
            for name, state in self.states.items()
        }
        return json.dumps({"present": self.present.to_json(), "moments": self.moments.tolist(), "states": states})

    @classmethod
    def of_text(cls, text: str) -> Canary:
        """The canary that `text` was made of."""
        raw = json.loads(text)
        moments = np.array(raw["moments"], np.float64)
        states = {
            name: State(
                np.array(state["at"], np.float64),
                np.array(state["numbers"], np.float64).reshape(len(moments), -1),
                np.array(state["texts"], object).reshape(len(moments), -1),
            )
            for name, state in raw["states"].items()
        }
        return cls(RowSchema.from_json(raw["present"]), states, moments)


def load(name: str, folder: Path) -> Model:
    """The model in `folder`, as the kind that `name` is; ArtefactError where there is none to use."""
    return TimingModel.load(folder) if name == TIMING_MODEL else ChoiceModel.load(folder)


def digest(said: Float64) -> str:
    """Equal for answers that are equal bit for bit."""
    return hashlib.sha256(repr(said.shape).encode() + np.ascontiguousarray(said).tobytes()).hexdigest()


def try_out(folder: Path, seconds: int) -> None:
    """Load and ask each artefact named in `folder` and write what came of it; `seconds` of processor time for each."""
    canary = Canary.of_text((folder / CANARY_FILE).read_text(encoding="utf-8"))
    artefacts: Sequence[tuple[str, str]] = json.loads((folder / ARTEFACTS_FILE).read_text(encoding="utf-8"))
    for number, (name, where) in enumerate(artefacts):
        _end_after(seconds)
        try:
            said = canary.answer(name, load(name, Path(where)))
        except Exception as error:
            text = str(error) if isinstance(error, ArtefactError) else f"{type(error).__name__}: {error}"
            replace_text(folder / f"{number}.refused", text)
        else:
            replace_text(folder / f"{number}.said", digest(said))
    _end_after(0)


def _end_after(seconds: int) -> None:
    """Let the kernel end this process, also where it never leaves a library; 0: do not.

    Processor time, because on a busy server this process gets little of it; by the clock only where it waits for ever.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(seconds * CLOCK)


def _limit() -> None:
    """What goes wrong here is this process's to pay for: first in line when memory is short, last for the processor."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT, OUTPUT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    first_to_go = Path("/proc/self/oom_score_adj")
    if first_to_go.exists():
        first_to_go.write_text("1000")


if __name__ == "__main__":
    stop_with_parent()
    _limit()
    try_out(Path(sys.argv[1]), int(sys.argv[2]))
