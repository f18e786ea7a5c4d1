"""What the bank calls its products and channels, what an action is called, and what its message says."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Self

from features.catalog import Catalog
from serving.console.readable import readable
from serving.console.words import Words


@dataclass(frozen=True)
class Names:
    """Names by id; an id that the catalogue no longer has is its own name."""

    products: Mapping[str, str]
    channels: Mapping[str, str]
    html: Set[str]
    """Channels whose messages are HTML."""
    words: Words

    @classmethod
    def of(cls, catalog: Catalog, words: Words) -> Self:
        return cls(
            {product.id: product.name for product in catalog.products},
            {channel.id: channel.name for channel in catalog.channels},
            {channel.id for channel in catalog.channels if channel.format == "html"},
            words,
        )

    def product(self, product_id: str) -> str:
        return self.products.get(product_id, product_id)

    def channel(self, channel_id: str) -> str:
        return self.channels.get(channel_id, channel_id)

    def action(self, action: Mapping[str, Any] | None) -> str:
        """`Gold card by E-mail`; of an action, or a candidate of a record, as JSON-ready values."""
        if action is None or action["channel"] is None:
            return self.words("no_contact")
        channel = self.channel(action["channel"])
        if action["product_id"] is None:
            return channel
        return self.words("about", product=self.product(action["product_id"]), channel=channel)

    def message(self, action: Mapping[str, Any] | None) -> str | None:
        """The text of an action's message as a person reads it; None where it has none."""
        if action is None or action["text"] is None:
            return None
        text: str = action["text"]
        return readable(text) if action["channel"] in self.html else text

    def subject(self, kind: str, name: str) -> str:
        """The name of something that was removed; an action's id is product/channel, or product/channel/content."""
        if kind == "product":
            return self.product(name)
        if kind == "channel":
            return self.channel(name)
        product, slash, rest = name.partition("/")
        if kind != "action" or not slash:
            return name
        channel, slash, content = rest.partition("/")
        return " · ".join(part for part in (self.product(product), self.channel(channel), content) if part)
