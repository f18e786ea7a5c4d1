"""PyTorch's scorer: a customer tower, candidate embeddings and the prior, as log-utilities.

    u[i, p] = prior[p] + w[p] . x[i] + e[p] . tower(x[i]) + match(x[i, p], tower(x[i]), p)

x are standardised columns. The outside option has w and e of its own and no match. All outputs start at zero,
so an untrained network is the prior, and what the data do not teach stays there.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from features.schema import Float32, Float64, Rows
from serving.booster_text import NotCompiled
from serving.network_forward import Forward
from serving.scorers import Layout, blocks, check_finite, read_scorer_file, write_scorer_file

ROWS_AT_ONCE = 4096
PROBES = 64
"""Rows on which the two forward passes are compared."""
CLOSE = 1e-6
FARTHEST = 6.0
"""Standard deviations beyond which a value counts as this far: an absurd input stays a finite score."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Architecture:
    """Sizes of a network: C customer columns, m candidates of K columns, hidden widths, dropout rates."""

    customer: int
    candidates: int
    columns: int
    hidden: int = 64
    embedding: int = 32
    dropout: float = 0.3
    input_dropout: float = 0.15


class Standardise(nn.Module):
    """Signed logarithm, standardised; missing values become the mean (0) and light an indicator of their own."""

    mean: Tensor
    scale: Tensor
    sometimes_missing: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.register_buffer("sometimes_missing", torch.zeros(columns))

    def learn(self, values: Float32) -> None:
        """Take mean, scale and which columns are ever missing from values [n, columns]."""
        known = torch.from_numpy(~np.isnan(values))
        logs = signed_log(torch.nan_to_num(torch.from_numpy(values).double(), nan=0.0))
        count = known.sum(dim=0).clamp(min=1)
        mean = (logs * known).sum(dim=0) / count
        spread = ((((logs - mean) * known) ** 2).sum(dim=0) / count).sqrt()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        self.sometimes_missing.copy_((~known).any(dim=0))

    def forward(self, values: Tensor) -> Tensor:
        missing = torch.isnan(values)
        near = ((signed_log(values) - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST)
        shown = torch.where(missing, torch.zeros_like(near), near)
        return torch.cat([shown, missing * self.sometimes_missing], dim=-1)  # [..., 2 * columns]


class ChoiceNetwork(nn.Module):
    """Log-utilities of m candidates and the outside option."""

    prior: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.register_buffer("prior", torch.zeros(a.candidates + 1))
        self.customer = Standardise(a.customer)
        self.candidate = Standardise(a.columns)
        self.input_dropout = nn.Dropout(a.input_dropout)
        self.linear = nn.Linear(2 * a.customer, a.candidates + 1)
        self.tower = nn.Sequential(
            nn.Linear(2 * a.customer, a.hidden),
            nn.ReLU(),
            nn.Dropout(a.dropout),
            nn.Linear(a.hidden, a.embedding),
            nn.ReLU(),
            nn.Dropout(a.dropout),
        )
        self.embedding = nn.Linear(a.embedding, a.candidates + 1, bias=False)
        self.match_candidate = nn.Linear(2 * a.columns, a.embedding)
        self.match_customer = nn.Linear(a.embedding, a.embedding, bias=False)
        self.match_identity = nn.Parameter(torch.zeros(a.candidates, a.embedding))
        self.match = nn.Sequential(nn.ReLU(), nn.Dropout(a.dropout), nn.Linear(a.embedding, 1, bias=False))
        for layer in (self.linear, self.embedding, self.match[-1]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, customer: Tensor, candidates: Tensor) -> Tensor:
        """customer [n, C] and candidates [n, m, K], NaN where unknown -> log-utilities [n, m + 1]."""
        x = self.input_dropout(self.customer(customer))  # [n, 2C]
        h = self.tower(x)  # [n, embedding]
        own: Tensor = self.prior + self.linear(x) + self.embedding(h)  # [n, m + 1]
        each = self.match_candidate(self.input_dropout(self.candidate(candidates)))  # [n, m, embedding]
        meeting = each + self.match_customer(h)[:, None] + self.match_identity  # [n, m, embedding]
        match: Tensor = self.match(meeting).squeeze(-1)  # [n, m]
        return own + nn.functional.pad(match, (0, 1))  # [n, m + 1]


def signed_log(values: Tensor) -> Tensor:
    """sign(v) ln(1 + |v|): amounts, counts and ages on one scale, zero kept."""
    return torch.sign(values) * torch.log1p(torch.abs(values))


class TorchScorer:
    """A `ChoiceNetwork` behind the scorer seam.

    forward: the same formula without torch, once it was proved to say the same; from then on `network` stays as it is.
    """

    family: ClassVar[str] = "torch"
    file: ClassVar[str] = "network.safetensors"

    def __init__(self, layout: Layout, prior: Float32, architecture: Architecture, network: ChoiceNetwork) -> None:
        self.layout = layout
        self.prior = prior
        self.architecture = architecture
        # float64: sums in another order, as in a batch of one and of a thousand, then differ by 1e-15 and not
        # by 1e-6
        self.network = network.double().eval()
        self.forward: Forward | NotCompiled = NotCompiled("the network is being learned")

    def utilities(self, rows: Rows) -> Float32:
        """Log-utilities, float32 [n, m + 1], the outside option last."""
        customer, candidates = self.layout.customer(rows), self.layout.candidates(rows)
        utilities = np.empty((len(rows), len(self.prior)), dtype=np.float32)
        ask = self._by_torch if isinstance(self.forward, NotCompiled) else self.forward.utilities
        for part in blocks(len(rows), ROWS_AT_ONCE):
            utilities[part] = ask(customer[part], candidates[part])  # [b, m + 1]
        return utilities

    @torch.no_grad()
    def _by_torch(self, customer: Float32, candidates: Float32) -> Float64:
        """customer [b, C], candidates [b, m, K] -> float64 [b, m + 1]."""
        x = torch.from_numpy(customer.astype(np.float64))
        z = torch.from_numpy(candidates.astype(np.float64))
        told: Float64 = self.network(x, z).numpy()
        return told

    def compile(self) -> None:
        """Answer by numpy from now on, if it says what torch says."""
        state = {name: value.numpy() for name, value in self.network.state_dict().items()}
        forward = Forward.of(state, FARTHEST)
        draw = np.random.default_rng(0)
        a = self.architecture
        customer = draw.normal(scale=100.0, size=(PROBES, a.customer)).astype(np.float32)
        candidates = draw.normal(scale=100.0, size=(PROBES, a.candidates, a.columns)).astype(np.float32)
        for block in (customer, candidates):
            block[draw.random(block.shape) < 0.2] = np.nan
            block[draw.random(block.shape) < 0.2] = 0.0
            block[draw.random(block.shape) < 0.05] = np.finfo(np.float32).max
        self.forward = forward
        self._compare(customer, candidates)

    @property
    def uncompiled(self) -> str:
        return str(self.forward) if isinstance(self.forward, NotCompiled) else ""

    def check_compiled(self, rows: Rows) -> None:
        """Answer by torch again unless numpy says the same of these rows."""
        self._compare(self.layout.customer(rows), self.layout.candidates(rows))

    def _compare(self, customer: Float32, candidates: Float32) -> None:
        if isinstance(self.forward, NotCompiled):
            return
        apart = np.abs(self.forward.utilities(customer, candidates) - self._by_torch(customer, candidates))
        if not (apart <= CLOSE).all():  # NaN too
            self.forward = NotCompiled(
                f"numpy must say what torch says to {CLOSE}, however they are {apart.max():.2g} apart"
            )
            log.warning("the network is asked by torch: %s", self.forward)

    def save(self, folder: Path) -> None:
        write_scorer_file(folder, self.family, self.layout, self.prior, asdict(self.architecture))
        state = {name: value.float().contiguous() for name, value in self.network.state_dict().items()}
        save_file(state, folder / self.file)

    @classmethod
    def load(cls, folder: Path) -> TorchScorer:
        layout, prior, config = read_scorer_file(folder, cls.family)
        architecture = Architecture(**config)
        network = ChoiceNetwork(architecture)
        weights = load_file(folder / cls.file)
        for name, values in weights.items():
            check_finite(name, values.numpy())
        network.load_state_dict(weights)
        scorer = cls(layout, prior, architecture, network)
        scorer.compile()
        return scorer
