"""What a request costs before anything is done for it: an ASGI app that reads the body and answers with a constant.

`uvicorn empty:app` bare; `bentoml serve empty:EmptyService` mounted in BentoML with its access log and tracing off, as
ours is; `bentoml serve empty:EmptyApi` as BentoML's quickstart has it.
"""

import os
from typing import Any

import bentoml
from starlette.types import Receive, Scope, Send

ANSWER = b'{"decision":null}'


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


@bentoml.service(
    workers=int(os.environ.get("EMPTY_WORKERS", "1")),
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    monitoring={"enabled": False},
    tracing={"sample_rate": 0.0, "excluded_urls": ".*"},
)
@bentoml.asgi_app(app, path="/")
class EmptyService:
    """Nothing behind a mounted app."""


@bentoml.service
class EmptyApi:
    @bentoml.api
    def decide(self, customer_id: str) -> dict[str, Any]:
        return {"decision": None}
