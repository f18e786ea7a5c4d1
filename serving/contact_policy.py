"""The contact policy: how often, and how soon after a rebuff, a customer may be contacted to sell something.

Only marketing is limited, and only marketing counts: a service message uses nothing up, a mandatory one knows no
limits. Windows end when the message is sent, which quiet hours may defer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from features.columns import Purpose
from features.policies import Calendar, CapRule, Scope, SuppressionRule
from features.times import micros
from serving.caps import Cap
from serving.history import Response
from serving.situation import Situation

_MONTHS = {"month": 1, "quarter": 3, "year": 12}
LONGEST_PERIOD = timedelta(days=368)
"""No calendar period of any zone is longer."""


@dataclass(frozen=True)
class ContactCap:
    """Keeps marketing contacts to a number in a rolling or calendar window."""

    rule: CapRule

    @cached_property
    def reach_back(self) -> timedelta:
        """How far before a send the window may begin."""
        return LONGEST_PERIOD if self.rule.days is None else timedelta(days=self.rule.days)

    def may_refuse(self, at: Situation) -> bool:
        """Whether there are enough contacts at all for the cap to be reached."""
        return at.purpose == Purpose.MARKETING and len(at.past.contacts) >= self.rule.limit

    def cap(self, value: str | None, send_at: datetime, zone: ZoneInfo) -> Cap:
        """What the ledger is to check for a contact of `value` (a channel, product, group; None: any) at `send_at`."""
        return Cap(self.rule.id, self.rule.target.scope, value, self._since_us(send_at, zone), self.rule.limit)

    def refusal(self, value: str | None, send_at: datetime, at: Situation) -> str | None:
        """Why there may be no contact of `value` at `send_at`; None: there may."""
        if not self.may_refuse(at):
            return None
        cap = self.cap(value, send_at, at.zone)
        count = at.past.tally.used(cap)
        if count < cap.most:
            return None
        window = f"this {self.rule.calendar}" if self.rule.calendar else f"{self.rule.days:g} days"
        return f"{count} marketing contacts {_about(cap.scope, value)}in {window}; {cap.most} are allowed"

    def _since_us(self, send_at: datetime, zone: ZoneInfo) -> int:
        if self.rule.days is not None:
            return micros(send_at - self.reach_back)
        # A contact at the very start belongs to the period, and a cap counts what is later than `since`.
        return micros(period_start(send_at, self.rule.calendar or "day", zone)) - 1


@dataclass(frozen=True)
class Suppression:
    """Silence after negative responses."""

    rule: SuppressionRule

    def may_refuse(self, at: Situation) -> bool:
        """Whether there are enough responses at all to be silent after."""
        return at.purpose == Purpose.MARKETING and len(at.past.responses) >= self.rule.after

    def refusal(self, value: str | None, send_at: datetime, at: Situation) -> str | None:
        """Why there may be no contact of `value` (a channel, product or group; None: any) then; None: there may."""
        if not self.may_refuse(at):
            return None
        times = [response.at_us for response in at.past.responses if self._counts(response, value)]
        now_us, silence_us = micros(send_at), _micros(self.rule.days)
        for first, last in zip(times, times[self.rule.after - 1 :], strict=False):
            together = self.rule.within is None or last - first < _micros(self.rule.within)
            if together and last <= now_us < last + silence_us:
                until = datetime.fromtimestamp((last + silence_us) // 1_000_000, UTC)
                rebuffs = f"{self.rule.after} negative responses {_about(self.rule.target.scope, value)}"
                return f"{rebuffs}were given; silent until {until:%Y-%m-%d %H:%M}Z"
        return None

    def _counts(self, response: Response, value: str | None) -> bool:
        """Whether a response is of the rule's kinds and about `value`; one that names nothing is about everything."""
        if response.kind not in self.rule.responses:
            return False
        match self.rule.target.scope:
            case "channel":
                return response.channel in (None, value)
            case "product":
                return response.product_id in (None, value)
            case "group":
                return response.product_id is None or response.group == value
            case _:
                return True


def period_start(at: datetime, calendar: Calendar, zone: ZoneInfo) -> datetime:
    """When the day, week (from Monday), month, quarter or year of the local calendar began that `at` lies in, in UTC.

    Where the clock skips midnight, the day begins with the jump; where midnight comes twice, with the first.
    """
    day = at.astimezone(zone).date()
    if calendar == "week":
        day -= timedelta(days=day.weekday())
    elif calendar in _MONTHS:
        months = _MONTHS[calendar]
        day = day.replace(month=(day.month - 1) // months * months + 1, day=1)
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _about(scope: Scope, value: str | None) -> str:
    return "" if scope == "overall" else f"of {scope} {value} "


def _micros(days: float) -> int:
    return timedelta(days=days) // timedelta(microseconds=1)
