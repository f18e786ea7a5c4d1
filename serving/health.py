"""Health for whoever runs the server: does it live, can it decide, what has it counted."""

from __future__ import annotations

import orjson
from fastapi import FastAPI, Response

from serving import problems
from serving.desk import Office
from serving.metrics import CONTENT_TYPE
from serving.opening import Serving
from serving.problems import documented


def add_health(app: FastAPI, office: Office) -> None:
    @app.get("/livez", summary="The process answers", response_model=None)
    async def livez() -> Response:
        return Response(b'{"live":true}', media_type="application/json")

    @app.get(
        "/readyz",
        summary="Decisions can be made; which models are loaded, and what is degraded",
        response_model=None,
        responses=documented(503),
    )
    async def readyz() -> Response:
        reasons = office.opening.reasons
        if reasons:
            return problems.response(503, "not-ready", "; ".join(reasons), [("", reason) for reason in reasons])
        return Response(orjson.dumps(_state(office.opening.serving)), media_type="application/json")

    @app.get("/metrics", summary="Counters for Prometheus", response_model=None)
    async def metrics() -> Response:
        return Response(office.meters.exposition(), media_type=CONTENT_TYPE)


def _state(serving: Serving) -> dict[str, object]:
    decider = serving.decider
    return {
        "ready": True,
        "models": {
            question: [{"name": name, "version": version} for name, version in sources]
            for question, sources in serving.models.items()
        },
        "degraded": serving.degraded,
        "uncompiled": serving.uncompiled,
        "features": decider.features_version,
        "catalog": decider.catalog_version,
        "policy": decider.policy.version,
        "reload": serving.reloader.state.document() if serving.reloader else None,
    }
