"""Taking up another model while serving: a moved alias is noticed, tried out, and swapped in between two requests.

    look (stamp) → find every alias → which versions are new → try them out (serving.trial) → one new Serving

A request keeps the Serving that it began with, so no answer mixes two. What is refused leaves the version that serves
in its place; it is tried again later, at growing distances, because it may have been the machine's fault.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from features.errors import NoSuchModel
from serving.places import Key, References, Slot, holds, panel_of, scheduler_of
from serving.registry import TIMING_MODEL, Registered
from serving.trial import Refused

if TYPE_CHECKING:
    from serving.opening import Serving

log = logging.getLogger(__name__)

FIRST_RETRY = 6
MOST_BETWEEN_RETRIES = 360
"""In polls: what was refused is tried again after six of them, then twelve, at last every hour or so."""

Try = Callable[[Sequence[Registered], Callable[[], bool]], Sequence[Any]]
"""`serving.trial.Trial`: per version a model, or Refused; may raise, then nothing is known."""


class Versions(Protocol):
    """What is polled: `serving.registry.Registry`."""

    def stamp(self) -> object | None:
        """Equal to the one before: nothing moved; None: it has to be asked."""
        ...

    def find(self, model_name: str, reference: str) -> Registered:
        """NoSuchModel where there is none; any other error: it does not answer."""
        ...


@dataclass(frozen=True)
class Refusal:
    """A version that was tried out and does not serve. due: the poll at which it is tried again."""

    registered: Registered
    reason: str
    tries: int
    due: int


@dataclass(frozen=True)
class State:
    """What reloading has come to."""

    seconds: float
    """Between two polls; 0: off."""
    taken: int = 0
    """Versions that were taken up."""
    refused: int = 0
    """Versions that were refused, each time they were."""
    unreachable: int = 0
    """Polls at which the registry did not answer."""
    refusals: tuple[Refusal, ...] = ()
    gone: tuple[Slot, ...] = ()
    """Places whose model serves on although the registry names none for them any more."""
    trouble: str | None = None
    """Why the registry could not be asked the last time."""

    @property
    def counts(self) -> tuple[tuple[str, int], ...]:
        """For /metrics: outcome and how often."""
        return ("taken", self.taken), ("refused", self.refused), ("unreachable", self.unreachable)

    def document(self) -> dict[str, Any]:
        """For /readyz."""
        return {
            "every_seconds": self.seconds,
            "taken": self.taken,
            "refused": [
                {
                    "model": refusal.registered.model_name,
                    "version": refusal.registered.version,
                    "reason": refusal.reason,
                    "tries": refusal.tries,
                }
                for refusal in self.refusals
            ],
            "gone": [f"{reference} of {model}" for model, reference in self.gone],
            "trouble": self.trouble,
        }


class Reloader:
    """Follows the registry. `turn` is for one thread; `state` may be read by any."""

    def __init__(self, references: References, versions: Versions, try_out: Try, seconds: float) -> None:
        self.references = references
        self.seconds = seconds
        self.state = State(seconds)
        self._slots = references.slots()
        self._versions = versions
        self._try = try_out
        self._polls = 0
        self._seen: object | None = None
        self._refused: dict[Key, Refusal] = {}

    def turn(self, serving: Serving, stopping: Callable[[], bool] = lambda: False) -> Serving:
        """Look once: what answers from now on, `serving` itself where nothing moved. Raises nothing."""
        self._polls += 1
        stamp = self._versions.stamp()
        if stamp is not None and stamp == self._seen and not any(map(self._due, self._refused)):
            return serving
        try:
            found = self._find()
            renewed = self._renewed(serving, found, stopping)
        except Exception as error:
            # Whatever it is, what is loaded serves on, and the next turn tries again.
            reason = str(error) or type(error).__name__
            if reason != self.state.trouble:
                log.warning("cannot look for moved models", exc_info=True)
            self._seen = None
            self.state = replace(self.state, unreachable=self.state.unreachable + 1, trouble=reason)
            return serving
        self._seen = stamp
        gone = tuple(slot for slot in self._slots if slot not in found and holds(renewed.decider, slot))
        refusals = tuple(self._refused.values())
        self.state = replace(self.state, refusals=refusals, gone=gone, trouble=None)
        return renewed

    def _find(self) -> dict[Slot, Registered]:
        """What the registry names for each slot; absent where it names nothing."""
        found = {}
        for slot in self._slots:
            with suppress(NoSuchModel):
                found[slot] = self._versions.find(*slot)
        return found

    def _renewed(self, serving: Serving, found: Mapping[Slot, Registered], stopping: Callable[[], bool]) -> Serving:
        """`serving` with what is new in `found` and passes; a place whose new version does not keeps what it has."""
        decider = serving.decider
        models: dict[Key, Any] = {
            (panel.question, source.version): source.model
            for panel in (decider.products, decider.channels)
            for source in panel.sources
        }
        models[TIMING_MODEL, decider.scheduler.version] = decider.scheduler.model
        wanted = {(one.model_name, one.version): one for one in found.values()}
        self._refused = {key: refusal for key, refusal in self._refused.items() if key in wanted}
        new = [one for key, one in wanted.items() if key not in models and self._due(key)]
        taken = self._taken(new, stopping) if new else {}
        models |= taken
        products = panel_of(decider.products, self._slots, found, models)
        channels = panel_of(decider.channels, self._slots, found, models)
        scheduler = scheduler_of(decider.scheduler, self._slots, found, models)
        if products is decider.products and channels is decider.channels and scheduler is decider.scheduler:
            return serving
        renewed = serving.with_models(products, channels, scheduler)
        self.state = replace(self.state, taken=self.state.taken + len(taken))
        return renewed

    def _taken(self, new: Sequence[Registered], stopping: Callable[[], bool]) -> dict[Key, Any]:
        """The models among `new` that passed."""
        passed = {}
        for registered, outcome in zip(new, self._try(new, stopping), strict=True):
            key = (registered.model_name, registered.version)
            if not isinstance(outcome, Refused):
                passed[key] = outcome
                self._refused.pop(key, None)
                log.info("%s version %s passed", *key)
                continue
            before = self._refused.get(key)
            tries = before.tries + 1 if before else 1
            due = self._polls + min(FIRST_RETRY << (tries - 1), MOST_BETWEEN_RETRIES)
            self._refused[key] = Refusal(registered, outcome.reason, tries, due)
            self.state = replace(self.state, refused=self.state.refused + 1)
            log.warning("%s version %s is refused: %s", *key, outcome.reason)
        return passed

    def _due(self, key: Key) -> bool:
        """Whether this version may be tried out now."""
        return key not in self._refused or self._refused[key].due <= self._polls
