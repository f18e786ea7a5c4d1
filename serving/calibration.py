"""From a model's raw probabilities to calibrated ones: strictly increasing maps, kept as JSON.

- "beta": m(p) = 1 / (1 + exp(-(a ln p - b ln(1 - p) + c))) with a, b > 0. Kull, Silva Filho and Flach (2017),
  "Beta calibration: a well-founded and easily implemented improvement on logistic calibration for binary
  classifiers", AISTATS. For candidates that have "none of them" beside them.
- "temperature": p^(1/t), normalised over the available candidates, so that they still sum to 1. Guo et al.
  (2017), "On calibration of modern neural networks", ICML. For candidates of which exactly one happens.
- "identity": too little evidence to say better; `evidence` says how little.

After the map each candidate's log-odds may be shifted by a number of its own: how much more or less is taken of late
than the model says (`nextbest refresh`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from features.schema import Float64

SMALLEST = 1e-15
"""Probabilities are kept this far from 0 and 1 before logarithms."""

_LENGTH = {"identity": 0, "beta": 3, "temperature": 1}


@dataclass(frozen=True)
class Calibration:
    """A strictly increasing map of probabilities.

    kind: the map. parameters: (a, b, c) of beta, (t,) of temperature, () of identity.
    evidence: for people: what it was fitted on, or why it was not. shifts: [m], added to each candidate's log-odds;
    () = none.
    """

    kind: Literal["identity", "beta", "temperature"]
    parameters: tuple[float, ...] = ()
    evidence: str = ""
    shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in _LENGTH or len(self.parameters) != _LENGTH[self.kind]:
            raise ValueError(f"calibration {self.kind!r} does not take the parameters {self.parameters}")
        if not all(np.isfinite(self.parameters)) or min(self.parameters[:2], default=1.0) <= 0:
            raise ValueError(f"calibration has to increase: a, b and t are above 0, however they are {self.parameters}")
        if not all(np.isfinite(self.shifts)):
            raise ValueError(f"shifts of log-odds are finite numbers, however they are {self.shifts}")

    def apply(self, probabilities: Float64) -> Float64:
        """Calibrated probabilities, float64 [n, m], of raw ones [n, m]; NaN (not available) stays NaN."""
        mapped = self._mapped(probabilities)
        return shifted(mapped, np.asarray(self.shifts)) if self.shifts else mapped

    def _mapped(self, probabilities: Float64) -> Float64:
        if self.kind == "identity":
            return probabilities
        if self.kind == "beta":
            logit = self.parameters[2] + beta_terms(probabilities) @ np.asarray(self.parameters[:2])
            with np.errstate(invalid="ignore"):  # NaN in, NaN out
                return np.asarray(np.exp(-np.logaddexp(0.0, -logit)))
        return sharpen(probabilities, self.parameters[0])

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        raw: dict[str, Any] = json.loads(text)
        parameters = tuple(float(value) for value in raw["parameters"])
        shifts = tuple(float(value) for value in raw.get("shifts", ()))  # models of old have none
        return cls(raw["kind"], parameters, raw["evidence"], shifts)


IDENTITY = Calibration("identity", evidence="not calibrated")


def shifted(probabilities: Float64, shifts: Float64) -> Float64:
    """Probabilities [n, m] whose log-odds are moved by `shifts` [m] (or [n, m]); NaN stays NaN."""
    inside = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    logit = np.log(inside) - np.log1p(-inside) + shifts
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        return np.asarray(np.exp(-np.logaddexp(0.0, -logit)))


def beta_terms(probabilities: Float64) -> Float64:
    """ln p and -ln(1 - p), stacked on a new last axis: the two covariates of beta calibration."""
    inside = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return np.stack([np.log(inside), -np.log1p(-inside)], axis=-1)


def sharpen(probabilities: Float64, temperature: float) -> Float64:
    """p^(1/temperature), each row normalised to sum 1 over what is not NaN; [n, m] -> [n, m]."""
    scaled = np.log(np.clip(probabilities, SMALLEST, 1.0)) / temperature
    available = ~np.isnan(probabilities)
    top = np.where(available, scaled, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.where(available, np.exp(scaled - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = weights.sum(axis=1, keepdims=True)
    return np.where(available, weights / np.where(total > 0, total, 1.0), np.nan)
