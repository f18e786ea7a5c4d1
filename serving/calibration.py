"""From a model's raw probabilities to calibrated ones: strictly increasing maps, kept as JSON.

- "beta": logit m(p) = a ln p - b ln(1 - p) + c with a, b > 0. Kull, Silva Filho and Flach (2017), "Beta calibration: a
  well-founded and easily implemented improvement on logistic calibration for binary classifiers", AISTATS. For
  candidates that have "none of them" beside them.
- "isotonic": through the rates of blocks by an isotonic regression, straight between their centres on the scale of
  logits, and never quite flat, so that ranks stay; beyond the outermost centres as steep as the raw logit. Zadrozny and
  Elkan (2002), "Transforming classifier scores into accurate multiclass probability estimates", KDD.
- "temperature": p^(1/t), normalised over the available candidates, so that they still sum to 1. Guo et al. (2017),
  "On calibration of modern neural networks", ICML. For candidates of which exactly one happens.
- "identity": the raw probabilities are right as they are, as far as the evidence tells.
- "none": too little evidence to say anything. What comes out are scores that rank, and nobody may call them
  probabilities; `evidence` says how little there was.

On top of any but "none", each candidate may have a level and a slope of its own (`by_candidate`). Last, each
candidate's log-odds may be shifted: how much more or less is taken of late than the model says (`nextbest refresh`).

A calibrated probability beside "none of them" is that of being taken within the horizon at all. Where several are taken
together a row may sum to more than 1, and rightly: held down to 1, the largest gap on real baskets was 0.011 instead
of 0.0015.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from features.schema import Float64

SMALLEST = 1e-15
"""Probabilities are kept this far from 0 and 1 before logarithms."""

UNCALIBRATED = "uncalibrated"
"""What answers, score files and runs say of a model whose scores are no probabilities."""

Kind = Literal["none", "identity", "beta", "isotonic", "temperature"]
_LENGTH = {"none": 0, "identity": 0, "beta": 3, "temperature": 1}


@dataclass(frozen=True)
class Calibration:
    """A map of probabilities, strictly increasing for each candidate.

    kind: the map of all. parameters: (a, b, c) of beta, (t,) of temperature, (x1, …, xk, y1, …, yk) of isotonic, logits
    both and increasing, () of the others.
    evidence: for people: what it was fitted on, or why it was not.
    by_candidate: per candidate (offset, slope > 0): logit -> offset + slope * logit, after the map of all; with a
    temperature the offset is added to the log-shares and the slope is 1. () = all candidates alike.
    shifts: [m], added to each candidate's log-odds after all that; () = none.
    """

    kind: Kind
    parameters: tuple[float, ...] = ()
    evidence: str = ""
    by_candidate: tuple[tuple[float, float], ...] = ()
    shifts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers, count = self.parameters, len(self.parameters)
        fits = count >= 4 and count % 2 == 0 if self.kind == "isotonic" else _LENGTH.get(self.kind) == count
        if not fits:
            raise ValueError(f"calibration {self.kind!r} does not take the parameters {numbers}")
        if not np.isfinite(numbers).all() or not np.isfinite(self.by_candidate).all():
            raise ValueError(f"calibration has finite parameters, however they are {numbers}, {self.by_candidate}")
        if self.kind == "isotonic":
            if (np.diff(self._knots, axis=1) <= 0).any():
                raise ValueError(f"calibration has to increase from knot to knot, however they are {numbers}")
        elif min(numbers[:2], default=1.0) <= 0:
            raise ValueError(f"calibration has to increase: a, b and t are above 0, however they are {numbers}")
        if min((slope for _, slope in self.by_candidate), default=1.0) <= 0:
            raise ValueError(f"calibration has to increase: slopes are above 0, however they are {self.by_candidate}")
        if self.kind == "none" and self.by_candidate:
            raise ValueError("calibration 'none' has nothing by candidate")
        if not np.isfinite(self.shifts).all():
            raise ValueError(f"shifts of log-odds are finite numbers, however they are {self.shifts}")

    @property
    def gives_probabilities(self) -> bool:
        """Whether what comes out may be called a probability."""
        return self.kind != "none"

    @property
    def scale(self) -> str:
        """What comes out, in a word."""
        return "probability" if self.gives_probabilities else UNCALIBRATED

    def note(self, model: str) -> str:
        """What has to be said of each answer of `model`; "" where its scores are probabilities."""
        if self.gives_probabilities:
            return ""
        return f"{model} is {UNCALIBRATED}: its scores rank, they are no probabilities ({self.evidence})"

    def apply(self, probabilities: Float64) -> Float64:
        """Calibrated probabilities, float64 [n, m], of raw ones [n, m]; NaN (not available) stays NaN."""
        with np.errstate(invalid="ignore"):  # NaN in, NaN out
            return self.apply_known(probabilities)

    @property
    def alone(self) -> bool:
        """Whether each probability is mapped whatever the others of its row are."""
        return self.kind != "temperature"

    def apply_known(self, probabilities: Float64) -> Float64:
        """`apply`, where none is NaN."""
        if self.kind == "temperature":
            mapped = sharpen(probabilities, self.parameters[0], self._levels[0] if self.by_candidate else 0.0)
        elif self.kind in ("none", "identity") and not self.by_candidate:
            mapped = probabilities
        else:
            against = self._logit(probabilities)
            if self.by_candidate:
                offset, slope = self._against
                against *= slope
                against += offset
            else:
                np.negative(against, out=against)
            mapped = _shares(against)
        return shifted(mapped, self._shifts) if self.shifts else mapped

    def _logit(self, probabilities: Float64) -> Float64:
        """Logits of the map of all, [n, m]."""
        if self.kind == "beta":
            return np.asarray(self.parameters[2] + beta_terms(probabilities) @ np.asarray(self.parameters[:2]))
        logit = logits(probabilities)
        if self.kind == "identity":
            return logit
        x, y = self._knots
        inner = np.maximum(logit, self.parameters[0])
        np.minimum(inner, self.parameters[len(x) - 1], out=inner)
        beyond = np.subtract(logit, inner, out=logit)
        beyond += np.interp(inner, x, y)
        return beyond

    # What is made of the tuples is made once: of one customer's few numbers it would be the most of the work.

    @cached_property
    def _knots(self) -> Float64:
        return np.asarray(self.parameters, dtype=np.float64).reshape(2, -1)

    @cached_property
    def _levels(self) -> Float64:
        """Offsets and slopes by candidate, [2, m]."""
        return np.ascontiguousarray(np.asarray(self.by_candidate, dtype=np.float64).T)

    @cached_property
    def _against(self) -> Float64:
        """The same for the odds against a candidate, whose logarithm is the negative logit."""
        return -self._levels

    @cached_property
    def _shifts(self) -> Float64:
        return np.asarray(self.shifts, dtype=np.float64)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """What `to_json` wrote. Before there was "none", "identity" said that there was too little evidence."""
        raw: dict[str, Any] = json.loads(text)
        kind: Any = "none" if raw["kind"] == "identity" and "by_candidate" not in raw else raw["kind"]
        return cls(
            kind,
            tuple(float(value) for value in raw["parameters"]),
            raw["evidence"],
            tuple((float(offset), float(slope)) for offset, slope in raw.get("by_candidate", ())),
            tuple(float(value) for value in raw.get("shifts", ())),
        )


IDENTITY = Calibration("identity", evidence="right as they are")


def shifted(probabilities: Float64, shifts: Float64) -> Float64:
    """Probabilities [n, m] whose log-odds are moved by `shifts` [m] (or [n, m]); NaN stays NaN."""
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        return _shares(-(logits(probabilities) + shifts))


def _shares(against: Float64) -> Float64:
    """1 / (1 + exp(against)) without overflow, in the place of `against`."""
    np.logaddexp(0.0, against, out=against)
    np.negative(against, out=against)
    return np.exp(against, out=against)


def beta_terms(probabilities: Float64) -> Float64:
    """ln p and -ln(1 - p), stacked on a new last axis: covariates of beta calibration, which sum to the logit."""
    inside = _inside(probabilities)
    return np.stack([np.log(inside), -np.log1p(-inside)], axis=-1)


def logits(probabilities: Float64) -> Float64:
    """ln p - ln(1 - p), of the same shape: the sum of `beta_terms`, to the last bit."""
    inside = _inside(probabilities)
    logit = np.log(inside)
    np.negative(inside, out=inside)
    logit -= np.log1p(inside, out=inside)
    return logit


def _inside(probabilities: Float64) -> Float64:
    """A copy of the probabilities, kept from 0 and 1, NaN as it is; as `np.clip`, which takes three times as long."""
    inside = np.maximum(probabilities, SMALLEST)
    return np.minimum(inside, 1 - SMALLEST, out=inside)


def sharpen(probabilities: Float64, temperature: float, offsets: Float64 | float = 0.0) -> Float64:
    """p^(1/temperature) e^offset, each row normalised to sum 1 over what is not NaN; [n, m] -> [n, m]. offsets: [m]."""
    scaled = np.log(np.clip(probabilities, SMALLEST, 1.0)) / temperature + offsets
    available = ~np.isnan(probabilities)
    top = np.where(available, scaled, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.where(available, np.exp(scaled - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = weights.sum(axis=1, keepdims=True)
    return np.where(available, weights / np.where(total > 0, total, 1.0), np.nan)
