"""Who answers: each model has places, an alias each, and in each place one version, or none.

The champion comes first, then the prior; the same version never stands in two places. A place keeps what it has where
the registry names nothing for it, or a version that did not pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from features.catalog import Catalog
from serving.registry import CHANNEL_MODEL, PRIOR, PRODUCT_MODEL, TIMING_MODEL, Registered
from serving.schedule import Scheduler
from serving.scoring import Panel, Source, source_of

if TYPE_CHECKING:
    from serving.decide import Decider

Slot = tuple[str, str]
"""(model, reference): a place that a version can take."""
Key = tuple[str, str]
"""(model, version)."""


@dataclass(frozen=True)
class References:
    """Which alias, version or run each model is taken from."""

    products: str
    channels: str
    timing: str

    def slots(self) -> tuple[Slot, ...]:
        """The best first, of each model."""
        chains = ((PRODUCT_MODEL, (self.products, PRIOR)), (CHANNEL_MODEL, (self.channels, PRIOR)))
        return (
            *((model, reference) for model, chain in chains for reference in dict.fromkeys(chain)),
            (TIMING_MODEL, self.timing),
        )


def no_models(catalog: Catalog, references: References) -> tuple[Panel, Panel, Scheduler]:
    """What a server begins with: places that no model has taken, and the reasons that its answers give."""
    products, channels = (
        Panel(name, candidates, outside, missing=_missing(name, reference, candidates))
        for name, candidates, outside, reference in (
            (PRODUCT_MODEL, catalog.product_ids, True, references.products),
            (CHANNEL_MODEL, catalog.channel_ids, False, references.channels),
        )
    )
    alike = f"no usable {references.timing} of {TIMING_MODEL}: all hours are taken alike"
    return products, channels, Scheduler(missing=(alike,))


def _missing(question: str, reference: str, candidates: Sequence[str]) -> tuple[str, ...]:
    return (f"no usable {reference} of {question}",) if candidates and reference != PRIOR else ()


def panel_of(panel: Panel, slots: Sequence[Slot], found: Mapping[Slot, Registered], models: Mapping[Key, Any]) -> Panel:
    """The panel with what is found and loaded for each of its places; itself where nothing changes."""
    references = [reference for model, reference in slots if model == panel.question]
    sources: dict[str, Source] = {}
    for reference in references if panel.candidates else ():
        now = next((source for source in panel.sources if source.name == reference), None)
        wanted = found.get((panel.question, reference))
        model = models.get((panel.question, wanted.version)) if wanted else None
        if wanted and model is not None:
            now = source_of(reference, wanted.version, model)
        if now:
            sources.setdefault(now.version, now)
    named = [(source.name, source.version) for source in sources.values()]
    if named == [(source.name, source.version) for source in panel.sources]:
        return panel
    there = references[0] in {source.name for source in sources.values()}
    missing = () if there else _missing(panel.question, references[0], panel.candidates)
    return replace(panel, sources=tuple(sources.values()), missing=missing)


def scheduler_of(
    scheduler: Scheduler, slots: Sequence[Slot], found: Mapping[Slot, Registered], models: Mapping[Key, Any]
) -> Scheduler:
    for slot in slots:
        wanted = found.get(slot)
        if slot[0] == TIMING_MODEL and wanted and wanted.version != scheduler.version:
            model = models.get((TIMING_MODEL, wanted.version))
            return scheduler if model is None else Scheduler(model, wanted.version)
    return scheduler


def holds(decider: Decider, slot: Slot) -> bool:
    """Whether some model answers in this place."""
    model, reference = slot
    if model == TIMING_MODEL:
        return decider.scheduler.model is not None
    panel = decider.products if model == PRODUCT_MODEL else decider.channels
    return any(source.name == reference for source in panel.sources)
