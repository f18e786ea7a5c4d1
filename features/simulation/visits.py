"""What happens besides marketing: visits to the app and the branch, calls, service messages, consent given again."""

from __future__ import annotations

import numpy as np

from features.columns import Kind
from features.schema import Bool, Float64
from features.simulation.calendar import DAY, LOCAL_OFFSET, Ints, at_local
from features.simulation.events import MARKETING, SERVICE, EventLog
from features.simulation.messages import Counters
from features.simulation.reactions import BRANCH, IN_APP, VOICE, visit_hour
from features.simulation.truth import Truth

BRANCH_VISITS, CALLS, SERVICE_MESSAGES = 0.004, 0.003, 0.008  # per day
OPT_IN = 0.01
"""Chance that a customer takes an opt-out back, per channel and interval between two decisions."""
FIRST_OPT_OUT = 0.02
"""Share of (customer, outbound channel) pairs opted out of from the first moment."""
_SERVICE_CHANNELS = (0, 2, 3)  # push, SMS, e-mail
_SERVICE_REACHED = 0.95


def inbound(
    random: np.random.Generator, log: EventLog, truth: Truth, app: Bool, begin: Float64, finish: Float64
) -> None:
    """Log who came by themselves between `begin` and `finish` [N]. app: bool [N], has the app."""
    days = np.maximum(finish - begin, 0.0) / DAY
    everyone = np.arange(len(days))
    liking = truth.latents.preference
    plans = (
        (Kind.VISITED, IN_APP, truth.app_visits(everyone) * app),
        (Kind.VISITED, BRANCH, BRANCH_VISITS * np.exp(0.7 * liking[:, BRANCH])),
        (Kind.CALLED, VOICE, CALLS * np.exp(0.7 * liking[:, VOICE])),
    )
    for kind, channel, rate in plans:
        customer = np.repeat(everyone, random.poisson(rate * days))
        start = begin[customer] + random.random(len(customer)) * (finish - begin)[customer]
        day = np.floor((start + LOCAL_OFFSET) / DAY)
        opening_hours = 9.0 + 9.0 * random.random(len(customer))
        hour = visit_hour(random, truth, customer) if channel == IN_APP else opening_hours
        at = at_local(day, hour)
        # The day was drawn inside the interval, the hour need not be: such visits at the edges are dropped.
        inside = (at > begin[customer]) & (at < finish[customer])
        log.add(kind, at[inside], customer[inside], channel=channel)


def service(
    random: np.random.Generator,
    log: EventLog,
    address: Bool,
    begin: Float64,
    finish: Float64,
    counters: Counters,
) -> None:
    """Log statements and notices; they use no marketing caps and ignore marketing consent. address: bool [N, H]."""
    length = np.maximum(finish - begin, 0.0)
    customer = np.flatnonzero(random.random(len(length)) < SERVICE_MESSAGES * length / DAY)
    n = len(customer)
    wanted = np.array(_SERVICE_CHANNELS)[random.integers(0, 3, n)]
    channel = np.where(address[customer, wanted], wanted, _SERVICE_CHANNELS[1])
    at = begin[customer] + random.random(n) * length[customer]
    names = {"channel": channel, "purpose": np.full(n, SERVICE), "message": counters.take(n)}
    log.add(Kind.SENT, at, customer, **names)
    reached = random.random(n) < _SERVICE_REACHED
    arrived = at + 2.0 + random.exponential(20.0, n)
    for kind, rows in ((Kind.DELIVERED, reached), (Kind.FAILED, ~reached)):
        log.add(kind, arrived[rows], customer[rows], **{name: values[rows] for name, values in names.items()})


def opt_in(
    random: np.random.Generator, log: EventLog, opted_out: Bool, begin: Float64, finish: Float64
) -> tuple[Ints, Ints]:
    """Log consents given again; returns (customers, channels). opted_out: bool [N, H] as of `begin`."""
    again = opted_out & (random.random(opted_out.shape) < OPT_IN) & (begin < finish)[:, None]
    customer, channel = np.nonzero(again)
    at = begin[customer] + random.random(len(customer)) * (finish - begin)[customer]
    log.add(Kind.OPTED_IN, at, customer, channel=channel, purpose=MARKETING)
    return customer, channel


def first_opt_outs(random: np.random.Generator, log: EventLog, known: Float64, channels: int) -> Bool:
    """Log and return what customers refuse when they join: bool [N, H]."""
    refused = random.random((len(known), channels)) < FIRST_OPT_OUT
    customer, channel = np.nonzero(refused)
    log.add(Kind.OPTED_OUT, known[customer], customer, channel=channel, purpose=MARKETING)
    return np.asarray(refused)
