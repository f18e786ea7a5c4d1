"""PyTorch under the masked softmax: minibatches of choices, AdamW, early stopping on the validation log-loss."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from features.progress import SILENT, Progress
from serving.choice import Question
from serving.network import Architecture, ChoiceNetwork, TorchScorer
from serving.scorers import Layout
from training.examples import Examples, log_loss
from training.families import Fitted, require_examples
from training.fit_prior import choose_half_life, half_life_of, log_popularity, prior_params
from training.settings import DEFAULTS, TUNED, Range, Settings, Watch, settings_of

BATCH = 1024
LEARNING_RATE = 3e-3
WEIGHT_DECAY, STRONGEST = 7.0, 4.0
"""Weight decay is WEIGHT_DECAY over the root of the batches per epoch: the less data, the nearer to the prior.

It is decoupled (Loshchilov and Hutter 2019, "Decoupled weight decay regularization"): each step takes the share
learning rate * weight decay off every weight.
"""

MOST_STEPS = 3000
FEWEST_EPOCHS, MOST_EPOCHS = 12, 200
PATIENCE_STEPS, FEWEST_PATIENCE = 200, 3
"""Training stops when the validation log-loss has not fallen for so many steps, and epochs at least."""

THREADS = 2
STANDARDISED_ON = 100_000
"""Rows, evenly spaced, from which mean and scale of the columns are taken."""


SPACE = {
    "learning_rate": Range(1e-3, 1e-2, log=True),
    "decay": Range(1.0, 20.0, log=True),
    "hidden": Range(16, 256, log=True, whole=True),
    "embedding": Range(8, 64, log=True, whole=True),
    "dropout": Range(0.0, 0.5),
    "input_dropout": Range(0.0, 0.4),
}
"""What `--tune` searches; decay: in the place of WEIGHT_DECAY."""
SIZES = ("hidden", "embedding")
RATES = ("dropout", "input_dropout")


def fit(
    question: Question,
    train: Examples,
    valid: Examples,
    seed: int = 0,
    progress: Progress = SILENT,
    settings: Settings = DEFAULTS,
    watch: Watch | None = None,
) -> Fitted:
    """Train until the validation log-loss stops falling; the best epoch is kept (epoch 0 is the prior)."""
    require_examples(question, training=train, validation=valid)
    started = time.perf_counter()
    half_life = choose_half_life(train, valid)
    batches = -(-len(train) // BATCH)
    epochs = int(np.clip(MOST_STEPS // batches, FEWEST_EPOCHS, MOST_EPOCHS))
    patience = max(FEWEST_PATIENCE, PATIENCE_STEPS // batches)
    with _reproducible(seed), progress.step("torch", epochs) as advance:
        scorer = _untrained(question, train, half_life, settings)
        network = copy.deepcopy(scorer.network).float()
        lowest, best_epoch, best = log_loss(scorer.utilities(valid.rows), valid), 0, _weights(network)
        for epoch, _ in enumerate(_epochs(network, scorer.layout, train, epochs, seed, settings), start=1):
            advance(1)
            scorer.network.load_state_dict(network.state_dict())
            loss = log_loss(scorer.utilities(valid.rows), valid)
            if loss < lowest:
                lowest, best_epoch, best = loss, epoch, _weights(network)
            elif epoch - best_epoch >= patience:
                break
            if watch is not None:
                watch(epoch * settings.get("learning_rate", LEARNING_RATE), loss)
        scorer.network.load_state_dict(best)
    return _fitted(scorer, best_epoch, half_life, len(train), settings, started)


def refit(question: Question, train: Examples, like: Fitted, seed: int = 0) -> Fitted:
    """Train on `train` for as many epochs as `like`."""
    require_examples(question, training=train)
    started = time.perf_counter()
    half_life, settings = half_life_of(like), settings_of(like, SPACE)
    with _reproducible(seed):
        scorer = _untrained(question, train, half_life, settings)
        network = copy.deepcopy(scorer.network).float()
        for _ in _epochs(network, scorer.layout, train, like.rounds, seed, settings):
            pass
        scorer.network.load_state_dict(network.state_dict())
    return _fitted(scorer, like.rounds, half_life, len(train), settings, started)


def weight_decay(rows: int, decay: float = WEIGHT_DECAY) -> float:
    """The decay of every weight for training on so many rows."""
    return float(min(STRONGEST, decay / np.sqrt(-(-rows // BATCH))))


def defaults(train: Examples) -> Settings:
    """The values of `SPACE` that a fit has by itself."""
    sizes = {name: getattr(Architecture, name) for name in (*SIZES, *RATES)}
    return {"learning_rate": LEARNING_RATE, "decay": WEIGHT_DECAY, **sizes}


def _untrained(question: Question, train: Examples, half_life: float | None, settings: Settings) -> TorchScorer:
    layout = Layout.of(question, train.rows.schema)
    prior = log_popularity(train, half_life)
    customer, candidates = layout.customer(train.rows), layout.candidates(train.rows)
    sizes: dict[str, Any] = {name: round(settings[name]) for name in SIZES if name in settings}
    sizes |= {name: float(settings[name]) for name in RATES if name in settings}
    architecture = Architecture(customer.shape[1], candidates.shape[1], candidates.shape[2], **sizes)
    network = ChoiceNetwork(architecture)
    network.prior.copy_(torch.from_numpy(prior))
    some = slice(None, None, -(-len(train) // STANDARDISED_ON))
    network.customer.learn(customer[some])
    network.candidate.learn(candidates[some][train.available[some, :-1]])
    return TorchScorer(layout, prior, architecture, network)


def _epochs(
    network: ChoiceNetwork, layout: Layout, train: Examples, epochs: int, seed: int, settings: Settings
) -> Iterator[None]:
    """Train `network` in place, yielding after each epoch."""
    arrays = (
        layout.customer(train.rows),
        layout.candidates(train.rows),
        train.available,
        train.chosen,
        train.weight / train.weight.mean(),
    )
    rate = settings.get("learning_rate", LEARNING_RATE)
    decay = weight_decay(len(train), settings.get("decay", WEIGHT_DECAY))
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    shuffle = np.random.default_rng(seed)
    for _ in range(epochs):
        network.train()
        order = shuffle.permutation(len(train))
        for start in range(0, len(order), BATCH):
            index = order[start : start + BATCH]
            customer, candidates, available, chosen, weight = (torch.from_numpy(a[index]) for a in arrays)
            optimiser.zero_grad()
            loss = masked_cross_entropy(network(customer, candidates), available, chosen, weight)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        yield


def masked_cross_entropy(utilities: Tensor, available: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
    """Mean over rows of weight times the masked softmax cross-entropy; [b, m + 1] each, weight [b]."""
    log_shares = utilities.masked_fill(~available, -torch.inf).log_softmax(dim=1)  # [b, m + 1]
    losses = -(chosen * log_shares.masked_fill(~available, 0.0)).sum(dim=1)  # [b]
    return (weight * losses).mean()


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seeded, deterministic, on `THREADS` threads; torch's own state is as before afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(THREADS)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)


def _weights(network: ChoiceNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _fitted(
    scorer: TorchScorer, epochs: int, half_life: float | None, rows: int, settings: Settings, started: float
) -> Fitted:
    params = {
        **asdict(scorer.architecture),
        **prior_params(half_life),
        "batch": BATCH,
        "learning_rate": settings.get("learning_rate", LEARNING_RATE),
        "decay": settings.get("decay", WEIGHT_DECAY),
        "weight_decay": weight_decay(rows, settings.get("decay", WEIGHT_DECAY)),
        TUNED: settings.keys() >= SPACE.keys(),
        "epochs": epochs,
        "rows_used": rows,
        "rows_given": rows,
    }
    return Fitted(scorer, epochs, time.perf_counter() - started, params)
