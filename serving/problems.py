"""Problem documents (RFC 9457): every error of the HTTP edge is one, whatever raised it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from serving.errors import FeaturesUnavailable, KeyReused, LedgerUnavailable, NotReady

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = "1"

_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_MEANING = {
    400: "The body is not JSON",
    404: "There is nothing here",
    405: "This path has other methods",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body must be application/json",
    422: "The request breaks the contract, or its idempotency key belongs to another one",
    500: "An error of ours",
    503: "Not ready, overloaded, or the ledger cannot promise durability",
}

_KNOWN: dict[type[Exception], tuple[int, str]] = {
    KeyReused: (422, "idempotency-key-reused"),
    LedgerUnavailable: (503, "ledger-unavailable"),
    FeaturesUnavailable: (503, "features-unavailable"),
    NotReady: (503, "not-ready"),
}


class Problem(Exception):
    """Raise it to answer with a problem document; `errors` are (JSON pointer, detail) pairs."""

    def __init__(self, status: int, kind: str, detail: str, errors: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)


def document(status: int, kind: str, detail: str, errors: Sequence[tuple[str, str]] = ()) -> bytes:
    """The JSON of a problem. `kind` names the problem for machines; it never holds what a caller sent."""
    title = HTTPStatus(status).phrase
    body: dict[str, Any] = {"type": f"urn:nextbest:{kind}", "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = [{"pointer": pointer, "detail": text} for pointer, text in errors]
    return orjson.dumps(body)


def response(
    status: int,
    kind: str,
    detail: str,
    errors: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    extra = {"retry-after": RETRY_SECONDS} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(document(status, kind, detail, errors), status, {**extra, **(headers or {})}, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of these error statuses."""
    return {
        status: {"description": _MEANING[status], "content": {MEDIA_TYPE: {"schema": _SCHEMA}}} for status in statuses
    }


def answer(error: Exception) -> Response | None:
    """The problem document of an error that this edge knows; None: an error of ours."""
    if isinstance(error, Problem):
        return response(error.status, error.kind, error.detail, error.errors)
    for known, (status, kind) in _KNOWN.items():
        if isinstance(error, known):
            return response(status, kind, _detail(error))
    return None


def install(app: FastAPI) -> None:
    """Answer every exception of `app` with a problem document."""

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        kinds = {404: "not-found", 405: "method-not-allowed"}
        kind = kinds.get(error.status_code, "http-error")
        detail = _MEANING.get(error.status_code, HTTPStatus(error.status_code).phrase)
        return response(error.status_code, kind, detail, headers=error.headers)

    _install_known(app, Problem)
    for known in _KNOWN:
        _install_known(app, known)

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> Response:
        # The server logs the trace; the caller gets none of it.
        return response(500, "internal-error", "an error of ours; nothing was decided")


def _install_known(app: FastAPI, known: type[Exception]) -> None:
    @app.exception_handler(known)
    async def _known(_: Request, error: Exception) -> Response | None:
        return answer(error)


def _detail(error: Exception) -> str:
    """What a caller may read: file paths and driver messages stay in the log."""
    if isinstance(error, KeyReused):
        return str(error)
    if isinstance(error, NotReady):
        return "the service is not ready; /readyz says why"
    if isinstance(error, LedgerUnavailable):
        return "the ledger cannot promise durability now; nothing was decided, and events have to be sent again"
    return "features cannot be read now, consent among them; nothing was decided"
