"""Opening what a server needs: features, ledger and models; what is missing decides between waiting and degrading.

Without features or ledger nothing can be decided, and the server says so until they are there. Without a model the
answers degrade and say so.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import ArtefactError, NextbestError
from serving.errors import NotReady

if TYPE_CHECKING:
    from features.catalog import Catalog
    from features.schema import RowSchema
    from serving.decide import Decider
    from serving.ledger import Ledger
    from serving.prices import Prices
    from serving.registry import Loaded
    from serving.schedule import Scheduler
    from serving.scoring import Panel
    from serving.settings import Settings
    from serving.timing import TimingModel

log = logging.getLogger(__name__)

Load = Callable[[str, str], "Loaded"]
"""(model name, reference) → model; raises ArtefactError with the reason where there is none."""


@dataclass(frozen=True)
class Serving:
    """Everything that answers requests."""

    decider: Decider
    ledger: Ledger
    missing: tuple[str, ...] = ()
    """What could not be opened beside models."""

    @property
    def degraded(self) -> list[str]:
        """What is missing that answers would be better with."""
        contents = (f"content {name}: {reason}" for name, reason in self.decider.contents.refused.items())
        decider = self.decider
        models = (*decider.products.missing, *decider.channels.missing, *decider.scheduler.missing)
        return [*models, *contents, *self.missing]


def open_serving(settings: Settings) -> Serving:
    """Open features, ledger and models; raises NextbestError where features or ledger cannot be opened."""
    # Here, not above: BentoML's supervisor imports this module too, and needs none of them.
    import numpy as np

    from features.arbitration import read_declared
    from features.assemble import assemble, row_schema
    from features.evidence import evidence
    from features.home import Home
    from features.packed import OnlineStates
    from serving.content import Contents
    from serving.decide import Decider
    from serving.history import Remembered, contacts, responses
    from serving.ledger import open_ledger
    from serving.policy import Policy
    from serving.registry import CHANNEL_MODEL, PRIOR, PRODUCT_MODEL, resolve, resolve_timing
    from serving.response import usual_rates
    from serving.value import Worth

    home = Home(settings.home)
    build = home.build()
    ledger = open_ledger(settings.ledger_url, home.ledger_path)  # first: it is the quickest to say no
    try:
        bank, catalog = build.bank, build.catalog
        ledger.seed(contacts(bank))
        present = row_schema(bank)

        def load(name: str, reference: str) -> Loaded:
            return resolve(name, reference, settings.tracking_uri)

        products = panel(PRODUCT_MODEL, catalog.product_ids, True, settings.product_model, load, present)
        channels = panel(CHANNEL_MODEL, catalog.channel_ids, False, settings.channel_model, load, present)
        customers = OnlineStates(build.online_path, build.views)
        nobody, end = customers.read([""]), np.array([build.data_end.timestamp()])
        usual = usual_rates(products, channels, PRIOR, lambda schema: assemble(nobody, end, schema))
        scheduler = timing(
            settings.timing_model, catalog, lambda reference: resolve_timing(reference, settings.tracking_uri)
        )
        worth = Worth.of(catalog, read_declared(catalog), evidence(bank), usual)
        prices, missing = campaign_prices(home.root, worth.unit)
        decider = Decider(
            catalog=catalog,
            attributes=bank.attributes,
            customers=customers,
            history=Remembered(ledger, responses(bank)),
            assemble=assemble,
            schema=next(iter(products.schemas + channels.schemas), present),
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
        )
    except BaseException:
        ledger.close()
        raise
    return Serving(decider, ledger, missing)


def campaign_prices(home: Path, unit: str) -> tuple[Prices | None, tuple[str, ...]]:
    """The prices of the campaign under way, if there is one, and why they cannot be used."""
    from serving.prices import Prices

    try:
        return Prices.read(home, unit), ()
    except ArtefactError as error:
        log.warning("%s", error)
        return None, (str(error),)


def panel(
    question: str, candidates: Sequence[str], outside: bool, reference: str, load: Load, present: RowSchema
) -> Panel:
    """The chain of models for one question: the one referred to, then the prior where there is one."""
    from serving.registry import PRIOR, misfit
    from serving.scoring import Panel, Source

    sources: list[Source] = []
    missing: list[str] = []
    if not candidates:
        return Panel(question, (), outside)
    for name in dict.fromkeys((reference, PRIOR)):
        try:
            found = load(question, name)
            reason = misfit(found.model.row_schema, present)
            if reason:
                raise ArtefactError(f"{question} version {found.version}: {reason}")
        except (NextbestError, OSError) as error:
            if name != PRIOR:
                log.warning("%s", error)
                missing.append(f"no usable {name} of {question}")
            continue
        versions = [source.version for source in sources]
        if found.version not in versions:
            sources.append(Source(name, found.version, found.model.question.candidates, found.model))
    return Panel(question, tuple(candidates), outside, tuple(sources), tuple(missing))


def timing(reference: str, catalog: Catalog, load: Callable[[str], tuple[TimingModel, str]]) -> Scheduler:
    """The scheduler with the model referred to; with all hours alike, and the reason, where there is none to use."""
    from serving.schedule import Scheduler

    try:
        model, version = load(reference)
        if (model.channels, model.time_zone) != (catalog.channel_ids, catalog.time_zone):
            raise ArtefactError(f"send-time version {version} was trained on other channels or another time zone")
    except (NextbestError, OSError) as error:
        log.warning("%s", error)
        return Scheduler(missing=(f"no usable {reference} of send-time: all hours are taken alike",))
    return Scheduler(model, version)


class Opening:
    """Opens in the background and tries again until it succeeds, so that the server answers health checks meanwhile."""

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
            self._thread.join()
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
        """What answers; raises NotReady with the reasons."""
        if self._serving is None:
            raise NotReady(self._reason)
        return self._serving

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._serving = self._open_it()
                return
            except Exception as error:
                # Whatever it is, the server stays up and says why it is not ready.
                if str(error) != self._reason:
                    log.exception("cannot open")
                self._reason = str(error) or type(error).__name__
                self._stop.wait(self._retry_seconds)
