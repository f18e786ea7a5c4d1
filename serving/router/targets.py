"""Where a channel's messages go: a TOML file of one Apprise URL per channel, and the customers' addresses.

    [channels.email]
    url = "mailto://smtp.bank.example:25?from=offers@bank.example&to={address}"
    title = "News from your bank"
    format = "html"

    [channels.app_push]
    url = "jsons://push.bank.example/messages?+X-Message-Id={message_id}&:customer={customer_id}"
    arrives = "when_accepted"

`{address}`, `{customer_id}`, `{message_id}` and `{channel}` are put in quoted, so that none of them can change where a
message goes; a name in capitals is a variable of the environment, for what must not stand in a file.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from features.errors import InputError

NAMES = ("address", "customer_id", "message_id", "channel")
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_KEYS = {"url": str, "title": str, "format": str, "arrives": str}


@dataclass(frozen=True)
class Target:
    """A channel's way out. url: with places to fill, the environment's already filled."""

    url: str
    title: str = ""
    format: Literal["text", "html"] = "text"
    arrives: Literal["when_accepted", "when_reported"] = "when_reported"
    """Whether the hop's word that it took the message means that it arrived, or a receipt says so later."""

    @property
    def addressed(self) -> bool:
        """Whether it needs the customer's address."""
        return "{address}" in self.url

    def filled(self, values: Mapping[str, str]) -> str:
        """The URL for one message."""
        return _PLACE.sub(lambda found: quote(values[found[1]], safe=""), self.url)


def read_targets(path: Path, environment: Mapping[str, str]) -> dict[str, Target]:
    """Channel → target; InputError with every problem."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from error
    channels = raw.get("channels")
    if set(raw) != {"channels"} or not isinstance(channels, dict) or not channels:
        raise InputError(f"{path} must hold tables [channels.NAME] and nothing else, one per channel")
    problems = [problem for name, given in channels.items() for problem in _problems(name, given, environment)]
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    return {name: Target(**{**given, "url": _with(given["url"], environment)}) for name, given in channels.items()}


def read_addresses(path: Path) -> dict[tuple[str, str], str]:
    """(customer, channel) → address, from a CSV file with the columns customer_id, channel, address."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {"customer_id", "channel", "address"} <= set(rows.fieldnames or ()):
                raise InputError(
                    f"{path} must have the columns customer_id, channel, address; it has {rows.fieldnames}"
                )
            return {(row["customer_id"], row["channel"]): row["address"] for row in rows if row["address"]}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from error


def _problems(name: str, given: Any, environment: Mapping[str, str]) -> list[str]:
    if not isinstance(given, dict) or "url" not in given:
        return [f"channel {name} needs a url"]
    found = [f"channel {name}: {key} is not one of {', '.join(_KEYS)}" for key in given if key not in _KEYS]
    found += [
        f"channel {name}: {key} must be a text, however it is {given[key]!r}"
        for key, kind in _KEYS.items()
        if not isinstance(given.get(key, ""), kind)
    ]
    for key, words in (("format", ("text", "html")), ("arrives", ("when_accepted", "when_reported"))):
        if given.get(key, words[0]) not in words:
            found.append(f"channel {name}: {key} must be {' or '.join(words)}, however it is {given[key]!r}")
    for place in _PLACE.findall(str(given["url"])):
        if place.isupper() and place not in environment:
            found.append(f"channel {name}: {{{place}}} must be set in the environment, however it is not")
        elif not place.isupper() and place not in NAMES:
            found.append(f"channel {name}: {{{place}}} is not one of {', '.join(NAMES)}")
    return found


def _with(url: str, environment: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda found: quote(environment[found[1]], safe="") if found[1].isupper() else found[0], url)
