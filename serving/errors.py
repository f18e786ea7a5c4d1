"""The errors of serving; the HTTP edge turns each into a problem document.

NextbestError
├── LedgerUnavailable   the decision could not be made durable: no contact may be made (503)
├── FeaturesUnavailable online features, consent among them, cannot be read (503)
├── KeyReused           an idempotency key came back with another request (422)
├── NotReady            features or ledger are not open yet (503)
└── RegistryUnreachable the model registry does not answer (an ArtefactError too: what is loaded keeps serving)
"""

from __future__ import annotations

from features.errors import ArtefactError, NextbestError


class LedgerUnavailable(NextbestError):
    """The ledger is closed, full or failing. The answer must not be given: it would not be remembered."""


class KeyReused(NextbestError):
    """An idempotency key names one request for ever; this request differs from the one it named first."""


class NotReady(NextbestError):
    """The service is still opening, or cannot open; the text lists the reasons."""


class FeaturesUnavailable(NextbestError):
    """The online features cannot be read. Consent is among them, so no decision can be made without."""


class RegistryUnreachable(ArtefactError):
    """The model registry does not answer; what it would say is not known."""
