"""How many SMS segments a text takes (3GPP TS 23.040, alphabet of TS 23.038).

A text within the GSM alphabet is sent in septets, one per character and two for the few behind the escape (braces,
brackets, €); any other text is sent in UCS-2, one unit per character and two beyond the basic plane. One segment holds
160 or 70 of them; where it takes more, each holds 153 or 67, for the header that joins them, and no character is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from gsm0338 import Codec

GSM_ALONE, GSM_JOINED = 160, 153
UCS2_ALONE, UCS2_JOINED = 70, 67


def segments(text: str) -> int:
    """Segments of a text, at least 1."""
    taken = septets(text)
    if taken is None:
        if units(text) <= UCS2_ALONE:
            return 1
        return _joined((1 + (ord(letter) > 0xFFFF) for letter in text), UCS2_JOINED)
    if taken <= GSM_ALONE:
        return 1
    return _joined((len(_codec().encode(letter)[0]) for letter in text), GSM_JOINED)


def septets(text: str) -> int | None:
    """Septets of a text in the GSM alphabet; None where it has letters that are not in it."""
    try:
        return len(_codec().encode(text)[0])
    except UnicodeEncodeError:
        return None


def units(text: str) -> int:
    """16-bit units of a text in UCS-2."""
    return len(text.encode("utf-16-be", "surrogatepass")) // 2


def is_plain(text: str) -> bool:
    """Whether a text is of plain Latin letters, digits and spaces: one septet each."""
    return text.isascii() and text.replace(" ", "").isalnum()


def room(characters: int) -> int:
    """Segments that a text of so many characters of the GSM alphabet, none of them escaped, takes."""
    return 1 if characters <= GSM_ALONE else -(-characters // GSM_JOINED)


def _joined(widths: Iterable[int], size: int) -> int:
    count, used = 1, 0
    for width in widths:
        if used + width > size:
            count, used = count + 1, 0
        used += width
    return count


@cache
def _codec() -> Codec:
    return Codec()
