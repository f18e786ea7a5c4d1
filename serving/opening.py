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
from typing import TYPE_CHECKING

from features.errors import ArtefactError, NextbestError
from serving.errors import NotReady

if TYPE_CHECKING:
    from features.schema import RowSchema
    from serving.decide import Decider
    from serving.ledger import Ledger
    from serving.registry import Loaded
    from serving.scoring import Panel
    from serving.settings import Settings

log = logging.getLogger(__name__)

Load = Callable[[str, str], "Loaded"]
"""(model name, reference) → model; raises ArtefactError with the reason where there is none."""


@dataclass(frozen=True)
class Serving:
    """Everything that answers requests."""

    decider: Decider
    ledger: Ledger

    @property
    def degraded(self) -> list[str]:
        """What is missing that answers would be better with."""
        contents = (f"content {name}: {reason}" for name, reason in self.decider.contents.refused.items())
        return [*self.decider.products.missing, *self.decider.channels.missing, *contents]


def open_serving(settings: Settings) -> Serving:
    """Open features, ledger and models; raises NextbestError where features or ledger cannot be opened."""
    # Here, not above: BentoML's supervisor imports this module too, and needs none of them.
    from features.assemble import assemble, row_schema
    from features.home import Home
    from features.packed import OnlineStates
    from serving.content import Contents
    from serving.decide import Decider
    from serving.ledger import SqliteLedger
    from serving.policy import Policy
    from serving.registry import CHANNEL_MODEL, PRODUCT_MODEL, resolve
    from serving.value import Worth

    home = Home(settings.home)
    build = home.build()
    ledger = SqliteLedger(home.ledger_path)  # first: it is the quickest to say no
    try:
        bank, catalog = build.bank, build.catalog
        present = row_schema(bank)

        def load(name: str, reference: str) -> Loaded:
            return resolve(name, reference, settings.tracking_uri)

        products = panel(PRODUCT_MODEL, catalog.product_ids, True, settings.product_model, load, present)
        channels = panel(CHANNEL_MODEL, catalog.channel_ids, False, settings.channel_model, load, present)
        decider = Decider(
            catalog=catalog,
            attributes=bank.attributes,
            customers=OnlineStates(build.online_path, build.views),
            assemble=assemble,
            schema=next(iter(products.schemas + channels.schemas), present),
            products=products,
            channels=channels,
            contents=Contents(catalog),
            policy=Policy(settings.temperature, settings.epsilon),
            worth=Worth.of(catalog),
            features_version=build.fingerprint[:16],
            catalog_version=hashlib.sha256((build.bank_folder / "catalog.toml").read_bytes()).hexdigest()[:16],
        )
    except BaseException:
        ledger.close()
        raise
    return Serving(decider, ledger)


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
