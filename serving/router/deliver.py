"""Sending one message to one person through Apprise: e-mail, webhooks, and whatever else it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from features.errors import NextbestError
from serving.router.targets import Target


class DeliveryFailed(NextbestError):
    """The hop did not take the message; the text says why, without address or password."""


@dataclass(frozen=True)
class Message:
    """What goes out. address: None where the channel's target needs none."""

    message_id: str
    customer_id: str
    channel: str
    address: str | None
    text: str


class Delivery(Protocol):
    """The seam to the channels."""

    def send(self, message: Message) -> bool:
        """Hand the message over; whether that means that it arrived. Raises DeliveryFailed where it was not taken."""
        ...


class AppriseDelivery:
    """Delivery by a target per channel."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        import apprise  # seconds

        self._targets = targets
        self._service = apprise.Apprise.instantiate

    def send(self, message: Message) -> bool:
        target = self._targets.get(message.channel)
        if target is None:
            raise DeliveryFailed(f"there is no target for channel {message.channel}")
        if not message.text:
            raise DeliveryFailed(
                f"there is nothing to say on channel {message.channel}: the decision came without a text"
            )
        if target.addressed and not message.address:
            raise DeliveryFailed(f"no address of the customer is known on channel {message.channel}")
        values = {"address": message.address or "", "customer_id": message.customer_id}
        values |= {"message_id": message.message_id, "channel": message.channel}
        service = self._service(target.filled(values))
        if service is None:
            raise DeliveryFailed(f"the target of channel {message.channel} is no URL that Apprise knows")
        # An address may hold a list. One decision, one recipient: anything else would be a broadcast.
        if len(service) != 1:
            raise DeliveryFailed(f"the target of channel {message.channel} names {len(service)} recipients, not one")
        if not service.notify(body=message.text, title=target.title, body_format=target.format):
            raise DeliveryFailed(f"channel {message.channel} did not take the message")
        return target.arrives == "when_accepted"
