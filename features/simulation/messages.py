"""What becomes of decisions: sent, delivered or failed, then opened, clicked, replied, opted out, complained."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from features.columns import Kind
from features.schema import Bool, Float64
from features.simulation.calendar import DAY, LOCAL_OFFSET, Ints, at_local
from features.simulation.catalog import CHANNELS, PRODUCTS
from features.simulation.events import MARKETING, NONE, EventLog
from features.simulation.logging_policy import Choice
from features.simulation.ownership import Conversions
from features.simulation.truth import Outcome, Truth

_INDEX = {channel.id: index for index, channel in enumerate(CHANNELS)}
IN_APP, VOICE, BRANCH = _INDEX["in_app"], _INDEX["voice"], _INDEX["branch"]
_ARRIVES = np.array([5.0, 0.0, 10.0, 60.0, 4.0, 15.0, 0.0])  # [H] median seconds from sent to delivered
_OPENS = np.array([600.0, 4.0, 900.0, 14_400.0, 1_800.0, 20.0, 60.0])  # [H] median seconds from delivered to opened
_SHOWS_OPEN = np.array([channel.id not in ("sms", "voice", "branch") for channel in CHANNELS])
_SPEAKS = np.array([channel.id in ("voice", "branch") for channel in CHANNELS])
WAIT_DAYS = 4
"""In-app and branch messages wait so long for the customer, then fail. Together with the at most six hours until an
opt-out this stays below the shortest gap between two decisions: no decision is taken before the last one settled."""
OPT_OUT_HOURS = 6.0
GLOBAL_OPT_OUT = 0.1
"""Share of opt-outs that end marketing on all channels at once."""


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

    def event(kind: Kind, when: Float64, rows: Bool, **more: npt.NDArray[np.int64]) -> None:
        columns = {name: values[rows] for name, values in {**names, **more}.items()}
        log.add(kind, when[rows], customer[rows], **columns)

    everyone = np.ones(n, dtype=np.bool_)
    draw = random.random((6, n))
    reached = draw[0] < outcome.reach
    opened = reached & (draw[1] < outcome.open)
    responded = opened & (draw[2] < outcome.respond)
    clicked = responded | (opened & (draw[3] < outcome.click))
    opt_out = reached & (draw[4] < outcome.opt_out)
    complained = reached & (draw[5] < outcome.complain)

    sent_at = at + 1.0 + 20.0 * random.random(n)
    arrived_at = _arrivals(random, truth, customer, channel, sent_at, reached)
    opened_at = arrived_at + np.minimum(_OPENS[channel] * np.exp(random.normal(0.0, 1.0, n)) + 1.0, 3.0 * DAY)
    clicked_at = opened_at + 3.0 + random.exponential(30.0, n)
    opt_out_at = arrived_at + 30.0 + random.random(n) * (OPT_OUT_HOURS * 3600.0 - 60.0)
    responds_at = clicked_at + np.minimum(np.exp(random.normal(10.0, 1.2, n)), 14.0 * DAY)

    event(Kind.SENT, sent_at, everyone)
    waits = reached & ((channel == IN_APP) | (channel == BRANCH))
    blank = np.full(n, NONE)
    event(
        Kind.VISITED, arrived_at - 2.0, waits, purpose=blank, product=blank, content=blank, decision=blank,
        message=blank,
    )  # fmt: skip
    event(Kind.DELIVERED, arrived_at, reached)
    event(Kind.FAILED, arrived_at, ~reached)
    event(Kind.OPENED, opened_at, opened & _SHOWS_OPEN[channel])
    event(Kind.CLICKED, clicked_at, clicked & ~_SPEAKS[channel])
    event(Kind.REPLIED, clicked_at, clicked & _SPEAKS[channel])
    everywhere = random.random(n) < GLOBAL_OPT_OUT
    event(Kind.OPTED_OUT, opt_out_at, opt_out, channel=np.where(everywhere, NONE, channel))
    event(Kind.COMPLAINED, opt_out_at + 600.0, complained)
    return Sent(
        customer, product, channel, content, decision, message, sent_at, opt_out, opt_out & everywhere,
        responded, responds_at, reached, opened,
    )  # fmt: skip


def log_conversions(random: np.random.Generator, log: EventLog, sold: Conversions) -> None:
    """Log the take-ups through messages; what they are worth varies around the product's margin."""
    margin = np.array([product.margin or 0.0 for product in PRODUCTS])[sold.product]
    value = np.round(margin * np.exp(random.normal(-0.02, 0.2, len(margin))), 2)
    log.add(
        Kind.CONVERTED, sold.at, sold.customer, channel=sold.channel, purpose=MARKETING, product=sold.product,
        content=sold.content, decision=sold.decision, message=sold.message, value=value,
    )  # fmt: skip


def visit_hour(random: np.random.Generator, truth: Truth, customer: Ints) -> Float64:
    """Local hours at which customers open the app: around their own peaks."""
    p = truth.parameters
    total = np.cumsum(truth.latents.rhythm[customer], axis=1)
    peak = np.minimum((total < random.random(len(customer))[:, None]).sum(axis=1), len(p.rhythm_peaks) - 1)
    return np.asarray((p.rhythm_peaks[peak] + random.normal(0.0, 0.8 * p.rhythm_width, len(customer))) % 24.0)


def _arrivals(
    random: np.random.Generator,
    truth: Truth,
    customer: Ints,
    channel: Ints,
    sent_at: Float64,
    reached: Bool,
) -> Float64:
    """When a message is delivered or fails: at once, or at the next visit to the app or the branch."""
    n = len(customer)
    quick = sent_at + _ARRIVES[channel] * np.exp(random.normal(0.0, 0.5, n)) + 1.0
    day = np.floor((sent_at + LOCAL_OFFSET) / DAY) + np.floor(random.random(n) * WAIT_DAYS)
    app = at_local(day, visit_hour(random, truth, customer))
    branch = at_local(day, 9.2 + 8.5 * random.random(n))
    visit = np.where(channel == IN_APP, app, branch)
    visit = np.where(visit < sent_at + 60.0, visit + DAY, visit)
    waits = (channel == IN_APP) | (channel == BRANCH)
    return np.where(waits, np.where(reached, visit, sent_at + WAIT_DAYS * DAY), quick)
