"""Attention over events that know their order and their time.

Rotary embedding (Su et al. 2021, "RoFormer: Enhanced transformer with rotary position embedding", arXiv:2104.09864):
queries and keys are rotated by angles that grow with their position, so that their product depends on the difference of
positions only. Here one half of each head turns with the place in the order of events, the other with time itself (as
in Gao and Dai 2024, "RoTHP: Rotary position embedding-based transformer Hawkes process", arXiv:2405.06985): order tells
which of two events of one moment came last, time tells how long ago a touch was. A row asks from its own moment, so the
time since each event is what its attention sees. Both are differences: nothing depends on when a history begins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

PERIODS_DAYS = (0.05, 4000.0)
"""Shortest and longest period of the rotation by time: 72 minutes, and eleven years, more than any two events lie apart
in a bank's memory."""
PLACES = (2.0, 2000.0)
"""Shortest and longest period of the rotation by order, in tokens."""
DAY = 86_400.0


class Turns:
    """Angles of places and times: the first half of the pairs of a head turns by order, the second by time.

    No module, as its numbers must stay float64 whatever the network becomes: years in seconds have no room for minutes
    in float32.
    """

    def __init__(self, head: int) -> None:
        pairs = head // 2
        shortest, longest = PERIODS_DAYS
        self.by_place = _speeds(pairs - pairs // 2, *PLACES)
        self.by_time = _speeds(pairs // 2, shortest * DAY, longest * DAY)

    def __call__(self, place: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor]:
        """place, seconds: float64 [b, t] -> cosines and sines, float64 [b, 1, t, head / 2], for `turned`."""
        by_place, by_time = (
            torch.tensor(speeds, dtype=torch.float64, device=place.device) for speeds in (self.by_place, self.by_time)
        )
        angles = torch.cat([place[..., None] * by_place, seconds[..., None] * by_time], dim=-1)
        return angles.cos()[:, None], angles.sin()[:, None]


def turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """x [b, heads, t, head] with each pair (i, i + head / 2) rotated by its angle."""
    cosine, sine = (turn.to(x.dtype) for turn in turns)
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cosine - other * sine, one * sine + other * cosine], dim=-1)


class Attention(nn.Module):
    """Heads of `asking` over `told`, both turned by their place and time."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        asking: Tensor,
        told: Tensor,
        turns_asking: tuple[Tensor, Tensor],
        turns_told: tuple[Tensor, Tensor],
        may: Tensor | None,
    ) -> Tensor:
        """asking [b, q, width], told [b, t, width] -> [b, q, width].

        may: bool [b, 1, q, t], what each may look at; None: both are the same tokens and each looks at itself and back.
        """
        query = self._split(self.query(asking))  # [b, heads, q, head]
        key, value = (self._split(half) for half in self.key_value(told).chunk(2, dim=-1))  # [b, heads, t, head]
        query, key = turned(query, turns_asking), turned(key, turns_told)
        dropout = self.dropout if self.training else 0.0
        found = nn.functional.scaled_dot_product_attention(query, key, value, may, dropout, is_causal=may is None)
        joined: Tensor = self.out(found.transpose(1, 2).flatten(2))  # [b, q, width]
        return joined

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


def _speeds(count: int, shortest: float, longest: float) -> list[float]:
    """Angles per unit of `count` periods spaced evenly in their logarithm."""
    ratio = math.log(longest / shortest) / max(count - 1, 1)
    return [2 * math.pi / (shortest * math.exp(ratio * place)) for place in range(count)]
