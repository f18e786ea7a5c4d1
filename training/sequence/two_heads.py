"""The loss of both heads, in sums: parts of a batch add up to the batch, so gradients may be gathered in pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from features.schema import Bool, Float32
from training.sequence.machine import Machine
from training.sequence.sequence_network import NEXT, SequenceNetwork
from training.sequence.windows import Batch

NEXT_WEIGHT = 0.5
"""What a nat of the next event counts for, beside one of the take-up."""


@dataclass(frozen=True)
class Labels:
    """What happened to the n rows: available bool [n, m + 1]; chosen, weight float32 [n, m + 1] and [n]."""

    available: Bool
    chosen: Float32
    weight: Float32


def next_targets(found: Batch) -> Bool:
    """bool [b, t - 1]: tokens whose successor is to be foretold: those that have one in the window."""
    targets: Bool = found.told[:, 1:]
    return targets


def evidence(found: Batch, labels: Labels) -> tuple[float, float]:
    """What a batch weighs: rows by their weight, and tokens with a successor."""
    row = found.row[found.row >= 0]
    return float(labels.weight[row].sum()), float(next_targets(found).sum())


def losses(
    network: SequenceNetwork,
    run: Callable[..., Any],
    found: Batch,
    labels: Labels,
    machine: Machine,
    whole: tuple[float, float],
    next_weight: float = NEXT_WEIGHT,
) -> tuple[Tensor, Tensor]:
    """The share of a part in the losses of its batch, in nats: take-up, and next event (mean of its four fields).

    whole: the evidence of the whole batch. The loss itself is float32, whatever the products were.
    """
    with machine.precise():
        utilities, h = run(machine.seen(found))
        foretold = [logits.float() for logits in network.foretold(h[:, :-1])] if next_weight else []
    take_up = _take_up(utilities, found, labels, machine) / max(whole[0], 1e-9)
    told = torch.from_numpy(next_targets(found)).to(machine.device)
    fields = torch.from_numpy(found.fields[:, 1:]).to(machine.device)
    following = torch.zeros((), device=take_up.device)
    for logits, field in zip(foretold, NEXT, strict=False):
        each = nn.functional.cross_entropy(logits.flatten(0, 1), fields[..., field].flatten(), reduction="none")
        following = following + (each * told.flatten()).sum() / len(NEXT)
    return take_up, following / max(whole[1], 1.0)


def _take_up(utilities: Tensor, found: Batch, labels: Labels, machine: Machine) -> Tensor:
    """Sum over rows of weight times the masked softmax cross-entropy."""
    place = found.row >= 0
    row = found.row[place]
    own = utilities[torch.from_numpy(place).to(machine.device)].float()  # [k, m + 1]
    available, chosen, weight = (
        torch.from_numpy(values[row]).to(machine.device) for values in (labels.available, labels.chosen, labels.weight)
    )
    log_shares = own.masked_fill(~available, -torch.inf).log_softmax(dim=1)
    each = -(chosen * log_shares.masked_fill(~available, 0.0)).sum(dim=1)  # [k]
    summed: Tensor = (weight * each).sum()
    return summed
