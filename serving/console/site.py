"""What every page of the console shares: templates, assets, and headers that let a browser load nothing else.

Everything printed is escaped; scripts and styles come from the two files beside this one, never from within a page, so
a text of a customer that got through all the same would still not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from urllib.parse import urlencode

from fastapi import Response
from jinja2 import Environment, PackageLoader, StrictUndefined

PATH = "/console"
TYPES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The assets and their media types."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_GUARDED = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_PRIVATE = {**_GUARDED, "cache-control": "no-store", "x-robots-tag": "noindex"}
"""Of pages: they hold a customer's data, and their addresses hold ids."""


def page(template: str, context: Mapping[str, object], status: int = 200) -> Response:
    """An HTML page. The context's values are escaped wherever a template prints them."""
    html = _templates().get_template(template).render(context)
    return Response(html, status, _PRIVATE, "text/html; charset=utf-8")


def asset(name: str, version: str | None) -> Response | None:
    """One of the assets; None where there is none of this name. Asked for by version it may be kept for ever."""
    if name not in TYPES:
        return None
    known = version == _version(name)
    keep = "public, max-age=31536000, immutable" if known else "no-cache"
    return Response(_asset(name), 200, {**_GUARDED, "cache-control": keep}, TYPES[name])


def link(**query: str | None) -> str:
    """The address of a page of the console; parameters that are None are left out."""
    return _address(PATH, query)


def live_link(**query: str | None) -> str:
    """The address of the part of a page that changes while it is looked at."""
    return _address(f"{PATH}/live", query)


def _address(path: str, query: Mapping[str, str | None]) -> str:
    given = urlencode({name: value for name, value in query.items() if value is not None})
    return f"{path}?{given}" if given else path


@lru_cache(maxsize=1)
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("serving", "console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(link=link, live_link=live_link, asset_link=_asset_link)
    return templates


def _asset_link(name: str) -> str:
    return _address(f"{PATH}/{name}", {"v": _version(name)})


@lru_cache(maxsize=len(TYPES))
def _asset(name: str) -> bytes:
    return resources.files("serving").joinpath("console", name).read_bytes()


@lru_cache(maxsize=len(TYPES))
def _version(name: str) -> str:
    return hashlib.sha256(_asset(name)).hexdigest()[:12]
