"""Numbers and times as people of either language read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta

from serving.console.words import Words

_DAYS = {
    "en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "zh": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
}
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_AGES = (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0), ("seconds", 1.0))


def day(at: date, words: Words) -> str:
    """`Saturday, 1 June 2024`, `2024年6月1日 星期六`."""
    weekday = _DAYS[words.language][at.weekday()]
    if words.language == "zh":
        return f"{at.year}年{at.month}月{at.day}日 {weekday}"
    return f"{weekday}, {at.day} {_MONTHS[at.month - 1]} {at.year}"


def moment(at: datetime, words: Words) -> str:
    """Day and time of the clock in the zone of `at`."""
    if words.language == "zh":
        return f"{at.year}年{at.month}月{at.day}日 {at:%H:%M}"
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}, {at:%H:%M}"


def percent(probability: float) -> str:
    """`97.5 %`; never `0 %` or `100 %` for what is neither impossible nor certain."""
    share = 100 * probability
    if 0 < share < 0.01:
        return "< 0.01 %"
    if 99.99 < share < 100:
        return "> 99.99 %"
    return f"{_plain(share, 2 if share < 1 or share > 99 else 1)} %"


def amount(value: float, unit: str, words: Words) -> str:
    """An amount of money, or a number of take-ups where the catalogue has no margins (unit "take-ups")."""
    number = quantity(value)
    return words("take_ups", n=number) if unit == "take-ups" else f"{number} {unit}"


def quantity(value: float) -> str:
    """A number with two decimals, or three digits where it is small."""
    if value and abs(value) < 0.1:
        return f"{value:.3g}".replace("-", "−")
    return f"{value:,.2f}".replace("-", "−")


def fact(value: object, words: Words) -> str:
    """A value of an attribute or feature: text as it is, yes or no, numbers with up to six digits."""
    if isinstance(value, bool):
        return words("yes" if value else "no")
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    return str(value)


def odds(propensity: float, words: Words) -> str:
    """A probability as a natural frequency, which people judge better than a percentage."""
    if propensity >= 1:
        return words("likely_certain")
    times = round(1000 * propensity)
    if times >= 1000:
        return words("likely_nearly")
    if times >= 2:
        return words("likely_times", times=times)
    return words("likely_rare", times=f"{round(1 / propensity):,}" if propensity > 0 else "∞")


def age(entry: Mapping[str, float | None], words: Words) -> str:
    """How old a state was when it was used; `age_seconds` None: nothing was known, below 0: later than the question."""
    seconds = entry["age_seconds"]
    if seconds is None:
        return words("age_none")
    if seconds < 0:
        return words("age_later")
    unit, length = next(((name, size) for name, size in _AGES if seconds >= 2 * size), _AGES[-1])
    return words("age", age=words(unit, n=round(timedelta(seconds=seconds) / timedelta(seconds=length))))


def _plain(number: float, decimals: int) -> str:
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
