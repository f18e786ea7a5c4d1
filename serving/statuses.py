"""Delivery states in the words of many providers, brought to the kinds of the timeline.

Every channel has a table: the words that common providers use, and those that the catalogue declares for it, which
come first. A state on the way (queued, deferred) is no event: what comes of it will be one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from features.catalog import Catalog
from features.columns import Kind

_USUAL: Mapping[Kind, str] = {
    Kind.SENT: "sent processed dispatched submitted",
    Kind.DELIVERED: "delivered delivrd delivery deliveredtoterminal completed",
    Kind.FAILED: (
        "failed failure undelivered undeliv undeliverable expired rejected rejectd reject deleted dropped blocked "
        "bounce bounced hard_bounce soft_bounce permanent_fail error invalid unreachable busy no-answer canceled "
        "unregistered notregistered baddevicetoken"
    ),
    Kind.OPENED: "opened open read seen displayed viewed",
    Kind.CLICKED: "clicked click",
    Kind.REPLIED: "replied reply inbound",
    Kind.COMPLAINED: "complained complaint spam spamreport spam_complaint",
    Kind.OPTED_OUT: "opted_out unsubscribed unsubscribe group_unsubscribe optout stop",
    Kind.OPTED_IN: "opted_in resubscribed resubscribe group_resubscribe subscribed subscribe optin start",
}
"""SMPP's message states, and the webhooks of mail, text, chat and push services."""
_ON_THE_WAY = (
    "accepted acceptd queued scheduled sending enroute buffered deferred delayed temporary_fail initiated ringing "
    "in-progress pending unknown"
)
_DEFAULTS = {word: kind for kind, words in _USUAL.items() for word in words.split()}


class NoEvent(ValueError):
    """The word means no event; the text says why."""


@dataclass(frozen=True)
class Statuses:
    """The tables of a catalogue's channels. declared: channel → word in lower case → kind."""

    declared: Mapping[str, Mapping[str, Kind]]

    @classmethod
    def of(cls, catalog: Catalog) -> Statuses:
        """The catalogue's own words beside the usual ones."""
        return cls(
            {
                channel.id: {word.casefold(): Kind(kind) for word, kind in (channel.statuses or {}).items()}
                for channel in catalog.channels
            }
        )

    def kind(self, channel: str, word: str) -> Kind:
        """The kind of event that a provider of `channel` reports with `word`; raises NoEvent where it is none."""
        plain = word.strip().casefold()
        found = self.declared.get(channel, {}).get(plain) or _DEFAULTS.get(plain)
        if found is not None:
            return found
        if plain in _ON_THE_WAY.split():
            raise NoEvent("a state on the way, which is no event yet")
        raise NoEvent("not a delivery state of this channel; declare it in the catalogue ([[channels]], statuses)")
