"""What a choice model is asked, and the formula from log-utilities to probabilities.

Multinomial choice with an outside option (McFadden 1974, "Conditional logit analysis of qualitative choice
behavior"): P(j) = exp(u_j) / sum over available k of exp(u_k). What cannot be chosen takes no part in the
sum, so availability is never mistaken for preference.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from features.schema import Bool, Float32, Float64

Block = Literal["product", "channel"]
Link = Literal["joint", "each"]
_LEAST = -np.finfo(np.float64).max


@dataclass(frozen=True)
class Question:
    """A question to a choice model.

    model: the model's name, as on the command line.
    candidates: m ids, in the order of every array of this model.
    block: the block of a row that describes the candidates.
    link: "joint" = the candidates compete, one softmax over all; "each" = each alone against the outside
    option.
    outside: whether "none of them" is an answer; always so with link "each".
    horizon_days: the answer is about what happens within so many days.
    """

    model: str
    candidates: tuple[str, ...]
    block: Block
    link: Link
    outside: bool
    horizon_days: float

    def __post_init__(self) -> None:
        if not self.candidates or len(set(self.candidates)) != len(self.candidates):
            raise ValueError(f"candidates are at least one and distinct, however they are {self.candidates}")
        if self.block not in ("product", "channel"):
            raise ValueError(f"block is 'product' or 'channel', however it is {self.block!r}")
        if self.link not in ("joint", "each"):
            raise ValueError(f"link is 'joint' or 'each', however it is {self.link!r}")
        if self.link == "each" and not self.outside:
            raise ValueError("link 'each' compares with the outside option, however outside is False")

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Question:
        raw: dict[str, Any] = json.loads(text)
        return cls(**{**raw, "candidates": tuple(raw["candidates"])})

    def probabilities(self, utilities: Float32 | Float64, available: Bool) -> Float64:
        """Uncalibrated probabilities, float64 [n, m]; NaN where a candidate is not available.

        utilities: [n, m + 1], finite, the outside option last. available: bool [n, m].
        """
        return np.where(available, self.shares(utilities, available), np.nan)

    def shares(self, utilities: Float32 | Float64, available: Bool) -> Float64:
        """`probabilities`, with any number in [0, 1] where a candidate is not available."""
        if self.link == "each":
            behind = np.subtract(utilities[:, -1:], utilities[:, :-1], dtype=np.float64)  # [n, m]
            shares = np.logaddexp(0.0, behind, out=behind)
            return np.exp(np.negative(shares, out=shares), out=shares)  # 1 / (1 + exp(behind)) without overflow
        options = np.empty(utilities.shape, dtype=np.bool_)  # [n, m + 1]
        options[:, :-1] = available
        options[:, -1] = self.outside
        return np.asarray(np.exp(masked_log_softmax(utilities, options)[:, :-1]))


def masked_log_softmax(utilities: Float32 | Float64, available: Bool) -> Float64:
    """Log-probabilities over the available options of each row; -inf for the others.

    Utilities and availability have the same shape [n, k]; a row with nothing available is -inf throughout.
    """
    masked = np.where(available, utilities.astype(np.float64), -np.inf)
    masked -= np.maximum.reduce(masked, axis=1, keepdims=True, initial=_LEAST)  # -inf stays what is not available
    # At least 1, for the best option alone, except where nothing is available.
    total = np.add.reduce(np.exp(masked), axis=1, keepdims=True)
    masked -= np.log(np.maximum(total, 1.0, out=total), out=total)
    return masked
