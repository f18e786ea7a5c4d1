"""The network: causal attention over tokens, a reader that asks from each row's moment, and two heads.

    h = causal layers(embedded tokens)                 [b, t, width], h[i] of tokens 0 .. i
    r = reader(moment of the row, h of what it knows)  [b, q, width]
    next event: kind, channel, product and gap of token i + 1, from h[i]
    take-up: u = prior + w . r, log-utilities of the candidates and the outside option

Padding stands at the end, where no earlier token looks. The take-up head starts at zero: an untrained network is the
prior, and what the data do not teach stays there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serving.network import Standardise
from training.sequence.attention import Attention, Turns
from training.sequence.vocabulary import FIELDS, WAVES
from training.sequence.windows import ASKED_WAVES

NEXT = tuple(FIELDS.index(name) for name in ("kind", "channel", "product", "gap"))
"""Fields of the next token that are foretold."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a network. words: per field. facts: customer columns of a row, 0 = only its events are read."""

    words: tuple[int, ...]
    options: int
    facts: int
    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2
    facts_dropout: float = 0.15

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):
            raise ValueError(
                f"width is a multiple of 4 x heads, so that each head turns by order and by time, however it is "
                f"{self.width} with {self.heads} heads"
            )


class Layer(nn.Module):
    """Attention, then a network of its own for each place; both are added to what came in (pre-norm)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, shape.heads, shape.dropout)
        self.dropout = nn.Dropout(shape.dropout)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self,
        asking: Tensor,
        told: Tensor | None,
        turns_asking: tuple[Tensor, Tensor],
        turns_told: tuple[Tensor, Tensor],
        may: Tensor | None,
    ) -> Tensor:
        """asking [b, q, width] over told [b, t, width]; told None: over itself, causally."""
        normal = self.before(asking)
        heard = self.attention(normal, normal if told is None else told, turns_asking, turns_told, may)
        x = asking + self.dropout(heard)
        out: Tensor = x + self.dropout(self.wide(self.after(x)))
        return out


class SequenceNetwork(nn.Module):
    """Log-utilities of each row, and what each token says of the next."""

    prior: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.register_buffer("prior", torch.zeros(shape.options))
        self.words = nn.ModuleList(_words(count, width) for count in shape.words)
        self.waves = nn.Linear(WAVES, width)
        self.dropout = nn.Dropout(shape.dropout)
        self.turns = Turns(width // shape.heads)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.told = nn.LayerNorm(width)
        self.next = nn.ModuleList(nn.Linear(width, shape.words[field]) for field in NEXT)
        self.asked_gap = nn.Embedding(shape.words[FIELDS.index("gap")], width)
        self.asked_waves = nn.Linear(ASKED_WAVES, width)
        self.facts = Standardise(shape.facts)
        self.facts_dropout = nn.Dropout(shape.facts_dropout)
        self.from_facts = nn.Linear(2 * shape.facts, width, bias=False) if shape.facts else None
        self.nothing = nn.Parameter(torch.zeros(width))
        self.reader = Layer(shape)
        self.asked = nn.LayerNorm(width)
        self.take_up = nn.Linear(width, shape.options)
        nn.init.zeros_(self.take_up.weight)
        nn.init.zeros_(self.take_up.bias)

    def forward(self, seen: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """A batch -> utilities [b, q, m + 1], and h [b, t, width] for `foretold`.

        seen: fields int64 [b, t, F], waves [b, t, WAVES], seconds float64 [b, t], asked_gap int64 [b, q], asked_waves
        [b, q, ASKED_WAVES], asked_seconds float64 [b, q], facts [b, q, C], knows int64 [b, q].
        """
        x = self.waves(seen["waves"])  # [b, t, width]
        for field, words in enumerate(self.words):
            x = x + words(seen["fields"][..., field])
        x = self.dropout(x)
        place = torch.arange(x.shape[1], device=x.device, dtype=torch.float64).expand(x.shape[:2])  # [b, t]
        turns = self.turns(place, seen["seconds"])
        for layer in self.layers:
            x = layer(x, None, turns, turns, None)
        h = self.told(x)
        return self._utilities(seen, h, place), h

    def _utilities(self, seen: dict[str, Tensor], h: Tensor, place: Tensor) -> Tensor:
        knows = seen["knows"]  # [b, q]
        newest = (knows - 1).clamp(min=0)[..., None].expand(-1, -1, h.shape[-1])
        asking = self.asked_gap(seen["asked_gap"]) + self.asked_waves(seen["asked_waves"])
        asking = asking + (knows > 0)[..., None] * h.gather(1, newest)  # [b, q, width]
        if self.from_facts is not None:
            asking = asking + self.from_facts(self.facts_dropout(self.facts(seen["facts"])))
        # Every row may look at `nothing`, one place before the first token and at its time; who knows no token, only at
        # it, from the same moment: nothing of a later token is in it.
        told = torch.cat([self.nothing.to(h.dtype).expand(len(h), 1, -1), h], dim=1)  # [b, 1 + t, width]
        place = nn.functional.pad(place, (1, 0), value=-1.0)
        turns_told = self.turns(place, nn.functional.pad(seen["seconds"], (1, 0)))
        turns_asked = self.turns(knows.double(), seen["asked_seconds"])
        may = (place[:, None] < knows[..., None]).unsqueeze(1)  # [b, 1, q, 1 + t]
        read = self.reader(asking, told, turns_asked, turns_told, may)
        utilities: Tensor = self.prior + self.take_up(self.asked(read)).float()  # [b, q, m + 1]
        return utilities

    def foretold(self, h: Tensor) -> list[Tensor]:
        """Logits of the next token's fields NEXT, each [..., words of the field], from h [..., width]."""
        return [head(h) for head in self.next]


def _words(count: int, width: int) -> nn.Embedding:
    words = nn.Embedding(count, width)
    nn.init.normal_(words.weight, std=0.1)  # there are six beside each other: together they are of size 1 / 4
    return words


def restored(shape: Shape, weights: Mapping[str, Tensor]) -> SequenceNetwork:
    """A network of these weights, for answering; it is made without drawing any, so torch's own state stays."""
    with torch.device("meta"):
        network = SequenceNetwork(shape)
    network.load_state_dict(weights, assign=True)
    return network.eval()
