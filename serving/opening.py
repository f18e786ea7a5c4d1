"""Opening what a server needs: features, ledger and models; what is missing decides between waiting and degrading.

Without features or ledger nothing can be decided, and the server says so until they are there. Without a model the
answers degrade and say so.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import ArtefactError
from serving.errors import NotReady

if TYPE_CHECKING:
    from features.customer_events import CustomerEvents
    from serving.decide import Decider
    from serving.ledger import Ledger
    from serving.prices import Prices
    from serving.reload import Reloader
    from serving.schedule import Scheduler
    from serving.scoring import Panel
    from serving.settings import Settings
    from serving.timeline import Timeline

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds that closing waits for what is being opened or tried out."""


@dataclass(frozen=True)
class Serving:
    """Everything that answers requests."""

    decider: Decider
    ledger: Ledger
    missing: tuple[str, ...] = ()
    """What could not be opened beside models."""
    renew: Callable[[Panel, Panel, Scheduler], Decider] | None = None
    """The decider with other models, over the same features, rules and history."""
    reloader: Reloader | None = None
    """What follows the registry for it."""
    imported: CustomerEvents | None = None
    """The events that the features were built from; None: there are none."""
    at_hand: bool = False
    """Whether ledger and features are files of this machine, so that no decision waits for another one."""

    @property
    def timeline(self) -> Timeline:
        """The customers' timelines, imported events and the ledger's in one order."""
        from serving.timeline import Timeline

        return Timeline(self.ledger, self.decider.catalog, self.imported)

    def with_models(self, products: Panel, channels: Panel, scheduler: Scheduler) -> Serving:
        """The same features and the same ledger, answering with these models."""
        if self.renew is None:
            raise ValueError("only what open_serving opened can be given other models")
        return replace(self, decider=self.renew(products, channels, scheduler))

    @property
    def models(self) -> dict[str, list[tuple[str, str]]]:
        """Per model who answers, as (name, version), the best first."""
        decider = self.decider
        panels = {panel.question: panel.sources for panel in (decider.products, decider.channels)}
        chains = {
            question: [(source.name, source.version) for source in sources] for question, sources in panels.items()
        }
        timing = self.reloader.references.timing if self.reloader else "model"
        return chains | {model: [(timing, version)] for model, version in decider.scheduler.versions.items()}

    @property
    def uncompiled(self) -> list[str]:
        """Models that answer more slowly than they could, and why."""
        from serving.compiled import Compiled

        scorers = (
            (f"{source.name} of {panel.question}", getattr(source.model, "scorer", None))
            for panel in (self.decider.products, self.decider.channels)
            for source in panel.sources
        )
        return [f"{name}: {one.uncompiled}" for name, one in scorers if isinstance(one, Compiled) and one.uncompiled]

    @property
    def degraded(self) -> list[str]:
        """What is missing that answers would be better with."""
        contents = (f"content {name}: {reason}" for name, reason in self.decider.contents.refused.items())
        decider = self.decider
        models = (*decider.products.missing, *decider.channels.missing, *decider.scheduler.missing)
        return [*models, *contents, *self.missing]


def open_serving(settings: Settings, ledger_path: Path | None = None) -> Serving:
    """Open features, ledger and models; raises NextbestError where features or ledger cannot be opened.

    ledger_path: a ledger file other than that of the settings, for decisions that nobody is to be contacted for.
    """
    # Here, not above: BentoML's supervisor imports this module too, and needs none of them.
    import numpy as np

    from features.arbitration import read_declared
    from features.assemble import assemble, row_schema
    from features.customer_events import CustomerEvents
    from features.evidence import evidence
    from features.home import Home
    from features.live import Live
    from features.online_states import open_states
    from serving.canary import Canary
    from serving.content import Contents
    from serving.decide import Decider
    from serving.history import Remembered, contacts, groups_of, responses
    from serving.ledger import open_ledger
    from serving.places import References, no_models
    from serving.policy import Policy
    from serving.registry import PRIOR, Registry
    from serving.reload import Reloader
    from serving.response import usual_rates
    from serving.trial import Trial
    from serving.value import Worth

    home = Home(settings.home)
    build = home.build()
    catalog = build.catalog
    live = Live(catalog)
    # Before what takes longer: it is the quickest to say no.
    url = "" if ledger_path else settings.ledger_url
    ledger = open_ledger(url, ledger_path or home.ledger_path, live.add, groups_of(catalog))
    try:
        bank = build.bank
        ledger.seed(contacts(bank))
        imported = CustomerEvents(build.bank_folder)
        ledger.rebase(f"{build.fingerprint} {live.fingerprint}", imported.has)
        present = row_schema(bank)

        customers = open_states(build, settings.online_url)
        nobody, end = customers.read([""]), np.array([build.data_end.timestamp()])
        declared, counted = read_declared(catalog), evidence(bank)
        references = References(settings.product_model, settings.channel_model, settings.timing_model)
        products, channels, scheduler = no_models(catalog, references)
        worth = Worth.of(catalog, declared, counted)
        prices, missing = campaign_prices(home.root, worth.unit)
        bare = Decider(
            catalog=catalog,
            attributes=bank.attributes,
            customers=customers,
            history=Remembered(ledger, responses(bank)),
            assemble=assemble,
            schema=present,
            products=products,
            channels=channels,
            contents=Contents(catalog),
            policy=Policy(
                settings.temperature, settings.epsilon, settings.exploration, settings.gamma, settings.loss_budget
            ),
            worth=worth,
            features_version=build.fingerprint[:16],
            catalog_version=hashlib.sha256((build.bank_folder / "catalog.toml").read_bytes()).hexdigest()[:16],
            scheduler=scheduler,
            prices=prices,
            merge=live.merged,
        )

        def renew(products: Panel, channels: Panel, scheduler: Scheduler) -> Decider:
            usual = usual_rates(products, channels, PRIOR, lambda schema: assemble(nobody, end, schema))
            return replace(
                bare,
                products=products,
                channels=channels,
                scheduler=scheduler,
                schema=next(iter(products.schemas + channels.schemas), present),
                worth=Worth.of(catalog, declared, counted, usual),
            )

        registry = Registry(settings.tracking_uri)
        canary = Canary.of(bank, present, customers, build.data_end)
        trial = Trial(registry.fetch, canary, home.root / "passed")
        reloader = Reloader(references, registry, trial, settings.reload_seconds)
        at_hand = not (url or settings.online_url)
        return reloader.turn(Serving(bare, ledger, missing, renew, reloader, imported, at_hand))
    except BaseException:
        ledger.close()
        raise


def campaign_prices(home: Path, unit: str) -> tuple[Prices | None, tuple[str, ...]]:
    """The prices of the campaign under way, if there is one, and why they cannot be used."""
    from serving.prices import Prices

    try:
        return Prices.read(home, unit), ()
    except ArtefactError as error:
        log.warning("%s", error)
        return None, (str(error),)


class Opening:
    """Opens in the background and tries again until it succeeds, so that the server answers health checks meanwhile.

    Once open, it follows the registry: what it has opened answers with the models that are referred to now.
    """

    def __init__(self, open_it: Callable[[], Serving], retry_seconds: float = 5.0) -> None:
        self._open_it = open_it
        self._retry_seconds = retry_seconds
        self._stop = threading.Event()
        self._serving: Serving | None = None
        self._reason = "not started"
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._reason = "features, models and ledger are being opened"
        self._thread = threading.Thread(target=self._run, name="opening", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop trying, and close the ledger after what it has accepted."""
        self._stop.set()
        if self._thread:
            self._thread.join(_PATIENCE)
        if self._serving:
            self._serving.ledger.close()

    @property
    def reasons(self) -> list[str]:
        """Why nothing can be decided now; empty: it can."""
        if self._serving is None:
            return [self._reason]
        return [] if self._serving.ledger.open else ["the ledger is closed"]

    @property
    def serving(self) -> Serving:
        """What answers. Take it once per request: the next one may be answered by other models.

        Raises NotReady with the reasons.
        """
        if self._serving is None:
            raise NotReady(self._reason)
        return self._serving

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._serving = self._open_it()
                break
            except Exception as error:
                # Whatever it is, the server stays up and says why it is not ready.
                if str(error) != self._reason:
                    log.exception("cannot open")
                self._reason = str(error) or type(error).__name__
                self._stop.wait(self._retry_seconds)
        if self._serving:
            self._follow(self._serving)

    def _follow(self, serving: Serving) -> None:
        """Take up what the registry refers to, until the end."""
        reloader = serving.reloader
        while reloader and reloader.seconds and not self._stop.wait(reloader.seconds):
            self._serving = reloader.turn(self._serving or serving, self._stop.is_set)
        if self._stop.is_set():
            serving.ledger.close()  # again, where close() could not wait for the opening
