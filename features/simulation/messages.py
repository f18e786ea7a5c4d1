"""What becomes of decisions: sent, delivered or failed, then opened, clicked, replied, opted out, complained."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from features.columns import Kind
from features.schema import Bool, Float64
from features.simulation.calendar import Ints
from features.simulation.catalog import PRODUCTS
from features.simulation.events import MARKETING, NONE, EventLog
from features.simulation.logging_policy import Choice
from features.simulation.ownership import Conversions
from features.simulation.reactions import react
from features.simulation.truth import Outcome, Truth


@dataclass(frozen=True)
class Sent:
    """The contacts among n decisions, one row each, and what came of them."""

    customer: Ints
    product: Ints
    channel: Ints
    content: Ints
    decision: Ints
    message: Ints
    sent_at: Float64
    opt_out: Bool
    opt_out_all: Bool
    responded: Bool
    responds_at: Float64
    reached: Bool
    opened: Bool


@dataclass
class Counters:
    """Running numbers of messages, over marketing and service."""

    message: int = field(default=0)

    def take(self, count: int) -> npt.NDArray[np.int64]:
        first, self.message = self.message, self.message + count
        return np.arange(first, first + count)


def send(
    random: np.random.Generator,
    log: EventLog,
    truth: Truth,
    choice: Choice,
    outcome: Outcome,
    customer: Ints,
    at: Float64,
    first_decision: int,
    counters: Counters,
) -> Sent:
    """Log n decisions and everything that follows the contacts among them, except take-ups (they need holdings).

    outcome: of the contacts only, in order.
    """
    decision = np.arange(first_decision, first_decision + len(customer))
    contact = choice.contact
    log.add(
        Kind.DECIDED, at, customer, channel=choice.channel, purpose=MARKETING, product=choice.product,
        content=choice.content, decision=decision, propensity=choice.propensity,
    )  # fmt: skip
    customer, at, decision = customer[contact], at[contact], decision[contact]
    product, channel, content = (values[contact] for values in (choice.product, choice.channel, choice.content))
    n = len(customer)
    message = counters.take(n)
    names = {
        "channel": channel, "purpose": np.full(n, MARKETING), "product": product, "content": content,
        "decision": decision, "message": message,
    }  # fmt: skip
    reactions = react(random, truth, customer, channel, outcome, at)
    for event in reactions.happenings():
        columns = names if event.of_message else {"channel": channel}
        if event.everywhere is not None:
            columns = {**columns, "channel": np.where(event.everywhere, NONE, channel)}
        chosen = {name: values[event.rows] for name, values in columns.items()}
        log.add(event.kind, event.at[event.rows], customer[event.rows], **chosen)
    return Sent(
        customer, product, channel, content, decision, message, reactions.sent_at, reactions.opt_out,
        reactions.opt_out_all, reactions.responded, reactions.responds_at, reactions.reached, reactions.opened,
    )  # fmt: skip


def log_conversions(random: np.random.Generator, log: EventLog, sold: Conversions) -> None:
    """Log the take-ups through messages; what they are worth varies around the product's margin."""
    margin = np.array([product.margin or 0.0 for product in PRODUCTS])[sold.product]
    value = np.round(margin * np.exp(random.normal(-0.02, 0.2, len(margin))), 2)
    log.add(
        Kind.CONVERTED, sold.at, sold.customer, channel=sold.channel, purpose=MARKETING, product=sold.product,
        content=sold.content, decision=sold.decision, message=sold.message, value=value,
    )  # fmt: skip
