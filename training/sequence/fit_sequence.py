"""Fitting the sequence model: windows in batches of like length, AdamW, early stopping on the validation log-loss."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from features.progress import SILENT, Progress
from features.schema import Float32
from training.examples import Examples, log_loss
from training.families import Plain
from training.fit_prior import choose_half_life, log_popularity
from training.sequence.machine import Machine, operations_per_token
from training.sequence.sequence_network import SequenceNetwork, Shape, restored
from training.sequence.two_heads import NEXT_WEIGHT, Labels, evidence, losses
from training.sequence.vocabulary import Encoded
from training.sequence.windows import Asked, Batch, Windows, batch, batches

ANSWERED_TOKENS, ANSWERED_ROWS = 32_768, 16_384
"""Of a batch that is only answered."""


@dataclass(frozen=True)
class Settings:
    """How to fit. length: tokens of a window. tokens, rows: of a part, at most. parts: gathered before each step.

    decay: decoupled weight decay (Loshchilov and Hutter 2019). facts: whether the customer columns of a row are read.
    """

    length: int = 128
    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    tokens: int = 8192
    rows: int = 1024
    parts: int = 1
    learning_rate: float = 2e-3
    decay: float = 0.3
    warm_steps: int = 30
    most_epochs: int = 40
    patience: int = 3
    next_weight: float = NEXT_WEIGHT
    facts: bool = True


@dataclass(frozen=True)
class Histories:
    """n rows to learn from: what each may know, and what came of it."""

    asked: Asked
    examples: Examples


@dataclass(frozen=True)
class FittedSequence:
    """A fitted network on the CPU. epochs: 0 is the prior. half_life: of the prior, days.

    trained: seconds in training steps alone. tokens: that went through them. seconds: of fitting, all in all.
    """

    shape: Shape
    network: SequenceNetwork
    epochs: int
    half_life: float | None
    seconds: float
    trained: float
    tokens: int
    rows: int
    params: dict[str, Plain] = field(default_factory=dict)

    @property
    def events_per_second(self) -> float:
        return self.tokens / max(self.trained, 1e-9)

    @property
    def rows_per_second(self) -> float:
        return self.rows / max(self.trained, 1e-9)

    def utilisation(self, machine: Machine, length: int) -> float | None:
        """Share of the chip's peak that the model's own operations made up (MFU); None where the peak is not known."""
        if machine.peak is None:
            return None
        counted = sum(p.numel() for name, p in self.network.named_parameters() if not name.startswith("words."))
        each = operations_per_token(counted, self.shape.layers, self.shape.width, length)
        return each * self.events_per_second / machine.peak


def fit(
    encoded: Encoded,
    words: tuple[int, ...],
    train: Histories,
    valid: Histories,
    settings: Settings,
    machine: Machine,
    seed: int = 0,
    progress: Progress = SILENT,
) -> FittedSequence:
    """Train until the validation log-loss stops falling; the best epoch is kept (epoch 0 is the prior)."""
    started = time.perf_counter()
    half_life = choose_half_life(train.examples, valid.examples)
    with machine.reproducible(seed), progress.step("sequence", settings.most_epochs) as advance:
        course = Course(encoded, words, train, settings, machine, half_life, seed)
        lowest, best_epoch, best = _loss(course, encoded, valid, settings, machine), 0, course.weights()
        for epoch in range(1, settings.most_epochs + 1):
            course.epoch()
            advance(1)
            loss = _loss(course, encoded, valid, settings, machine)
            if loss < lowest:
                lowest, best_epoch, best = loss, epoch, course.weights()
            elif epoch - best_epoch >= settings.patience:
                break
    return course.fitted(best, best_epoch, started)


def refit(
    encoded: Encoded,
    train: Histories,
    like: FittedSequence,
    settings: Settings,
    machine: Machine,
    seed: int = 0,
    progress: Progress = SILENT,
) -> FittedSequence:
    """Train on `train` for as many epochs as `like`."""
    started = time.perf_counter()
    with machine.reproducible(seed), progress.step("sequence, on all rows", like.epochs) as advance:
        course = Course(encoded, like.shape.words, train, settings, machine, like.half_life, seed)
        for _ in range(like.epochs):
            course.epoch()
            advance(1)
    return course.fitted(course.weights(), like.epochs, started)


class Course:
    """A network in training."""

    def __init__(
        self,
        encoded: Encoded,
        words: tuple[int, ...],
        train: Histories,
        settings: Settings,
        machine: Machine,
        half_life: float | None,
        seed: int,
    ) -> None:
        self.encoded, self.settings, self.machine, self.half_life = encoded, settings, machine, half_life
        self.asked = with_facts(train.asked, settings)
        examples = train.examples
        weight = (examples.weight / examples.weight.mean()).astype(np.float32)
        self.labels = Labels(examples.available, examples.chosen, weight)
        self.windows = Windows.over(self.asked, settings.length)
        self.shuffle = np.random.default_rng(seed)
        options, facts = examples.available.shape[1], self.asked.facts.shape[1]
        self.shape = Shape(words, options, facts, settings.width, settings.layers, settings.heads, settings.dropout)
        network = SequenceNetwork(self.shape)
        network.prior.copy_(torch.from_numpy(log_popularity(examples, half_life)))
        network.facts.learn(self.asked.facts)
        self.network = network.to(machine.device)
        self.run = machine.run(self.network)
        self.optimiser = torch.optim.AdamW(_decayed(self.network, settings.decay), lr=settings.learning_rate)
        self.steps, self.trained, self.tokens, self.rows = 0, 0.0, 0, 0

    def epoch(self) -> None:
        """Every window once."""
        self.network.train()
        self.machine.wait()
        started = time.perf_counter()
        for parts in self._gathered():
            self.step(parts)
        self.machine.wait()
        self.trained += time.perf_counter() - started

    def step(self, parts: list[Batch]) -> None:
        """One step of the optimiser on the gradient of all parts together."""
        self.gradient(parts)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.steps += 1
        warm = min(1.0, self.steps / self.settings.warm_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * warm
        self.optimiser.step()
        self.tokens += sum(part.tokens for part in parts)
        self.rows += sum(int((part.row >= 0).sum()) for part in parts)

    def gradient(self, parts: list[Batch]) -> None:
        """Leave the gradient of the parts' common loss in the parameters: each part adds its share."""
        self.optimiser.zero_grad()
        weighed = [evidence(part, self.labels) for part in parts]
        whole = (sum(rows for rows, _ in weighed), sum(tokens for _, tokens in weighed))
        for part in parts:
            taken, following = losses(
                self.network, self.run, part, self.labels, self.machine, whole, self.settings.next_weight
            )
            (taken + self.settings.next_weight * following).backward()  # type: ignore[no-untyped-call]  # untyped there

    def _gathered(self) -> Iterator[list[Batch]]:
        s = self.settings
        parts: list[Batch] = []
        for chosen in batches(self.windows, s.tokens, s.rows, self.shuffle):
            parts.append(batch(self.asked, self.encoded, self.windows, chosen, self.machine.multiple))
            if len(parts) == s.parts:
                yield parts
                parts = []
        if parts:
            yield parts

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    def fitted(self, weights: dict[str, Tensor], epochs: int, started: float) -> FittedSequence:
        network = restored(self.shape, weights)
        s, machine = self.settings, self.machine
        params: dict[str, Plain] = {
            "window_tokens": s.length,
            "width": s.width,
            "layers": s.layers,
            "heads": s.heads,
            "dropout": s.dropout,
            "batch_tokens": s.tokens,
            "batch_rows": s.rows,
            "accumulated": s.parts,
            "learning_rate": s.learning_rate,
            "weight_decay": s.decay,
            "next_event_weight": s.next_weight,
            "reads_customer_columns": s.facts,
            "prior_half_life_days": self.half_life or 0.0,
            "epochs": epochs,
            "rows_used": len(self.asked),
            "windows": len(self.windows),
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "device": machine.device,
            "bf16": machine.bf16,
            "compiled": machine.compiled,
        }
        seconds = time.perf_counter() - started
        return FittedSequence(
            self.shape,
            network,
            epochs,
            self.half_life,
            seconds,
            self.trained,
            self.tokens,
            self.rows,
            params,
        )


@torch.no_grad()
def utilities(
    network: SequenceNetwork, asked: Asked, encoded: Encoded, length: int, machine: Machine, exact: bool = True
) -> Float32:
    """Log-utilities of n rows, float32 [n, m + 1], the outside option last.

    exact: in float64, so that who else is in the batch moves nothing that float32 can show; the network is given back
    as it was.
    """
    was = network.training, next(network.parameters()).dtype
    network.eval().to(torch.float64 if exact else torch.float32)
    windows = Windows.over(asked, length)
    found = np.empty((len(asked), len(network.prior)), dtype=np.float32)
    for chosen in batches(windows, ANSWERED_TOKENS, ANSWERED_ROWS):
        part = batch(asked, encoded, windows, chosen)
        seen = machine.seen(part)
        if exact:
            seen = {name: value.double() if value.is_floating_point() else value for name, value in seen.items()}
        said, _ = network(seen)
        place = part.row >= 0
        found[part.row[place]] = said.cpu().numpy()[place]
    network.to(was[1]).train(was[0])
    return found


def with_facts(asked: Asked, settings: Settings) -> Asked:
    """The rows with their customer columns, or without them where the settings say so."""
    return asked if settings.facts else replace(asked, facts=asked.facts[:, :0])


def _loss(course: Course, encoded: Encoded, valid: Histories, settings: Settings, machine: Machine) -> float:
    asked = with_facts(valid.asked, settings)
    said = utilities(course.network, asked, encoded, settings.length, machine, exact=False)
    return log_loss(said, valid.examples)


def _decayed(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Matrices decay, offsets and scales do not."""
    named = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in named if parameter.dim() > 1], "weight_decay": decay},
        {"params": [parameter for parameter in named if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
